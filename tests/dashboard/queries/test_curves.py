from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from autopeft.store import StudyReader
from dashboard.queries import add_roles, chosen_trials, curves_frame, failures_frame, trials_frame
from tests.dashboard.studies import HOSTILE, WORKER, spec


@pytest.fixture(scope="module")
def frame(full_url: str) -> pd.DataFrame:
    with StudyReader(full_url) as reader:
        return add_roles(trials_frame(reader, "study", ["accuracy"]), spec())


def test_curves_are_the_reported_points(full_url: str) -> None:
    """Oracle: the fixture reports half and all of the final value at steps 10 and 20."""
    with StudyReader(full_url) as reader:
        found = curves_frame(reader, "study", [2, 3], "accuracy")
        expected = [[2, 10, 1.0, 0.25], [2, 20, 2.0, 0.5], [3, 10, 1.0, 0.35], [3, 20, 2.0, 0.7]]
        assert found.to_numpy(dtype=float) == pytest.approx(np.array(expected))
        assert curves_frame(reader, "study", [2], "never").empty
        assert curves_frame(reader, "study", [], "accuracy").empty


def test_filters_of_trials(frame: pd.DataFrame) -> None:
    assert len(chosen_trials(frame)) == len(frame)
    assert chosen_trials(frame, states=["FAILED"])["number"].tolist() == [9]
    assert chosen_trials(frame, kinds=["baseline"])["number"].tolist() == [0, 1]
    assert chosen_trials(frame, only_front=True)["number"].tolist() == [2, 3, 5]
    assert chosen_trials(frame, words=["HEAD", "only"])["number"].tolist() == [0]
    assert chosen_trials(frame, words=["diverg"])["number"].tolist() == [9]
    assert len(chosen_trials(frame, words=[WORKER])) == len(frame) - 1, "one still waits"
    texts = frame["number"].map(lambda number: f"words of {number}")
    assert chosen_trials(frame, words=["of", "7"], texts=texts)["number"].tolist() == [7]
    assert chosen_trials(frame, words=["d.v[e]rg*"]).empty
    assert chosen_trials(frame.iloc[:0], words=["x"]).empty


def test_failures_with_reason(frame: pd.DataFrame, full_url: str) -> None:
    with StudyReader(full_url) as reader:
        found = failures_frame(reader, "study", frame)
        assert found.to_dict("records") == [
            {"number": 9, "reason": "divergence", "message": HOSTILE, "worker": WORKER, "attempts": 1}
        ]
        assert failures_frame(reader, "study", frame.iloc[:3]).empty
