from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from autopeft.store import StudyReader, open_store
from dashboard.queries import surrogate_facts, trials_frame
from dashboard.queries._surrogate import rank_correlation
from tests.dashboard.studies import full


def test_predictions_meet_measurements(full_url: str) -> None:
    """Oracle: the fixture notes the measured value minus 0.02, and an interval that always holds it."""
    with StudyReader(full_url) as reader:
        frame = trials_frame(reader, "study", ["accuracy"])
        facts = surrogate_facts(reader, "study", frame, "accuracy")
        assert (facts.frame["measured"] - facts.frame["predicted"]).tolist() == pytest.approx([0.02] * 6)
        assert facts.rank_correlation == pytest.approx(1)
        assert facts.inside == 1
        assert facts.quality["number"].tolist() == [2, 3, 4, 5, 6, 7]
        assert facts.quality["n"].tolist() == [0, 1, 2, 3, 4, 5]
        assert set(facts.quality["rank_correlation"]) == {0.6}
        assert set(facts.quality["held_out"]) == {0.4}
        other = surrogate_facts(reader, "study", frame.assign(never=np.nan), "never")
    assert other.frame.empty
    assert other.quality.empty
    assert (other.rank_correlation, other.inside) == (None, None)


def test_notes_of_another_shape_are_no_predictions(url: str) -> None:
    full(url)
    store = open_store(url)
    odd = (
        "text",
        {"predicted": 3, "leave_one_out": {"accuracy": {"n": "many"}}},
        {"predicted": {"accuracy": {"mean": 1}}},
    )
    for number, note in enumerate(odd, start=2):
        store.set_note("study", number, "suggestion", note)
    reader = StudyReader(url)
    facts = surrogate_facts(reader, "study", trials_frame(reader, "study", ["accuracy"]), "accuracy")
    assert facts.frame["number"].tolist() == [5, 6, 7]
    assert facts.quality["number"].tolist() == [5, 6, 7]


def test_of_many_judgements_some_are_read_and_the_newest_among_them(
    monkeypatch: pytest.MonkeyPatch, full_url: str
) -> None:
    monkeypatch.setattr("dashboard.queries._surrogate._MAX_JUDGED", 3)
    with StudyReader(full_url) as reader:
        frame = trials_frame(reader, "study", ["accuracy"])
        known = frame[frame["number"] <= 7]
        assert surrogate_facts(reader, "study", known, "accuracy").quality["number"].tolist() == [2, 4, 7]


def test_ranks() -> None:
    """Oracle: scipy."""
    left, right = np.array([1.0, 2.0, 2.0, 5.0]), np.array([3.0, 1.0, 4.0, 9.0])
    assert rank_correlation(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    assert rank_correlation(left, np.ones(4)) is None
    assert rank_correlation(left[:2], right[:2]) is None
