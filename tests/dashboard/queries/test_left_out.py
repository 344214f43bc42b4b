from __future__ import annotations

from copy import deepcopy

import pytest

from autopeft.store import StudyReader
from dashboard.queries import LeftOutFacts, left_out_facts, trials_frame
from tests.dashboard.studies import SEARCHED, left_out


def facts(full_url: str, attributes: dict[str, object] | None = None, name: str = "accuracy") -> LeftOutFacts:
    with StudyReader(full_url) as reader:
        kept = reader.attributes("study") if attributes is None else attributes
        return left_out_facts(kept, trials_frame(reader, "study", ["accuracy"]), name)


def test_predictions_meet_measurements(full_url: str) -> None:
    """Oracle: the fixture keeps the measured value minus 0.03, and an interval that always holds it."""
    found = facts(full_url)
    assert found.frame["number"].tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert found.frame["measured"].tolist() == pytest.approx([accuracy for _, accuracy in SEARCHED] + [0.5])
    assert (found.frame["measured"] - found.frame["predicted"]).tolist() == pytest.approx([0.03] * 7)
    assert found.frame["is_extrapolated"].tolist() == [False] * 6 + [True]
    assert (found.n_search, found.inside) == (7, 1.0)
    assert found.rank_correlation == pytest.approx(1)


def test_the_share_inside_counts(full_url: str) -> None:
    kept = deepcopy(left_out(SEARCHED))
    kept["objectives"]["accuracy"]["high"][0] = -1.0
    assert facts(full_url, {"leave_one_out": kept}).inside == pytest.approx(6 / 7)


def test_what_cannot_be_told_is_left_out(full_url: str) -> None:
    kept = deepcopy(left_out(SEARCHED))
    kept["objectives"]["accuracy"]["mean"][3] = None
    assert facts(full_url, {"leave_one_out": kept}).frame["number"].tolist() == [2, 3, 4, 6, 7, 8]


@pytest.mark.parametrize(
    "kept",
    [
        None,
        "text",
        {"numbers": [1, 2]},
        {"numbers": [1], "objectives": {"accuracy": {"observed": [1.0, 2.0], "mean": [1], "low": [1], "high": [1]}}},
        {"numbers": [1], "objectives": {"accuracy": {"observed": ["x"], "mean": [1], "low": [1], "high": [1]}}},
        {"numbers": 1, "objectives": [], "n_search": "many"},
    ],
)
def test_anything_else_is_no_model(full_url: str, kept: object) -> None:
    found = facts(full_url, {} if kept is None else {"leave_one_out": kept})
    assert found.frame.empty
    assert (found.n_search, found.rank_correlation, found.inside) == (None, None, None)


def test_a_value_without_a_model(full_url: str) -> None:
    assert facts(full_url, name="macro_f1").frame.empty
