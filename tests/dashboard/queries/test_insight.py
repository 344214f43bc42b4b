from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from autopeft.store import StudyReader
from dashboard.queries import fidelity_frame, importance, params_frame, surrogate_facts, trials_frame
from dashboard.queries._insight import encoded, rank_correlation
from tests.dashboard.studies import draft, full, lora, params, run, spec
from tests.study.builders import ACCURACY


def made(n: int, seed: int = 0) -> tuple[pd.DataFrame, dict[int, float]]:
    """Points whose value depends on `rank` alone; `gate` and `profile` are noise, `constant` never varies."""
    rng = np.random.default_rng(seed)
    points = pd.DataFrame(
        {
            "number": range(n),
            "rank": rng.integers(1, 64, n),
            "gate": rng.random(n) < 0.5,
            "profile": rng.choice(["flat", "triangle", None], n),
            "constant": 3,
        }
    )
    values = {int(i): float(np.log(rank)) for i, rank in zip(points["number"], points["rank"], strict=True)}
    return points, values


def test_the_parameter_that_matters_is_found_and_reliable() -> None:
    found = importance(*made(120))
    assert found.frame["parameter"].tolist()[0] == "rank"
    assert found.frame["importance"].iloc[0] > 0.9
    assert found.frame["importance"].sum() == pytest.approx(1)
    assert set(found.frame["parameter"]) == {"rank", "gate", "profile"}
    assert found.explained is not None
    assert found.explained > 0.8
    assert found.doubt is None
    assert importance(*made(120)).frame.equals(found.frame), "the same every time"


def test_noise_is_not_reliable() -> None:
    points, values = made(120)
    rng = np.random.default_rng(1)
    found = importance(points, {number: float(rng.normal()) for number in values})
    assert found.doubt is not None
    assert "explains" in found.doubt


def test_few_trials_are_not_reliable() -> None:
    found = importance(*made(14))
    assert found.doubt is not None
    assert "only 14 trials" in found.doubt
    assert importance(*made(5)).frame.empty
    assert importance(*made(5)).doubt == "only 5 trials"


def test_nothing_varied() -> None:
    points, values = made(30)
    assert importance(points[["number", "constant"]], values).doubt == "no parameter was varied"
    assert importance(points, dict.fromkeys(values, 0.5)).doubt == "all trials have the same value"
    assert importance(points.iloc[:0], {}).frame.empty


def test_parameters_as_numbers() -> None:
    assert encoded(pd.Series([1, 10, 100, None], dtype=object)).tolist() == pytest.approx([0, 1, 2, -0.2])
    assert encoded(pd.Series([True, False, None], dtype=object)).tolist() == pytest.approx([1, 0, -0.1])
    assert encoded(pd.Series(["b", "a", None], dtype=object)).tolist() == [1, 0, -1]


def test_points_come_by_trial(full_url: str) -> None:
    """Oracle: the fixture's params; baselines have none."""
    with StudyReader(full_url) as reader:
        found = params_frame(reader, "study", range(20))
    assert found["number"].tolist()[:3] == [2, 3, 4]
    assert found["rank"].tolist()[:3] == [1, 2, 3]
    assert params_frame(reader, "study", []).columns.tolist() == ["number"]


def test_predictions_meet_measurements(full_url: str) -> None:
    """Oracle: the fixture notes the measured value minus 0.02, and an interval that always holds it."""
    with StudyReader(full_url) as reader:
        frame = trials_frame(reader, "study", ["accuracy"])
        facts = surrogate_facts(reader, "study", frame, "accuracy")
        assert (facts.frame["measured"] - facts.frame["predicted"]).tolist() == pytest.approx([0.02] * 6)
        assert facts.rank_correlation == pytest.approx(1)
        assert facts.inside == 1
        assert facts.latest is not None
        assert (facts.latest[0], facts.latest[1]["rank_correlation"]) == (7, 0.6)
        other = surrogate_facts(reader, "study", frame.assign(never=np.nan), "never")
    assert other.frame.empty
    assert (other.rank_correlation, other.inside, other.latest) == (None, None, None)


def test_notes_of_another_shape_are_no_predictions(url: str) -> None:
    from autopeft.store import open_store

    full(url)
    store = open_store(url)
    for number, note in enumerate(("text", {"predicted": 3}, {"predicted": {"accuracy": {"mean": 1}}}), start=2):
        store.set_note("study", number, "suggestion", note)
    reader = StudyReader(url)
    facts = surrogate_facts(reader, "study", trials_frame(reader, "study", ["accuracy"]), "accuracy")
    assert facts.frame["number"].tolist() == [5, 6, 7]


def test_early_order_against_the_end(url: str) -> None:
    """Oracle: scipy's Kendall tau of the values that the fixture reports at half time."""
    from autopeft.store import open_store

    with open_store(url) as store:
        store.create_study(spec())
        finals = [0.5, 0.6, 0.7, 0.65, 0.55, 0.8]
        for rank, final in enumerate(finals, start=1):
            run(store, draft(lora(rank), 100 * rank, params=params(rank)), final)
    reader = StudyReader(url)
    found = fidelity_frame(reader, "study", trials_frame(reader, "study", ["accuracy"]), ACCURACY)
    early = [final * 10 / 20 for final in finals]
    expected = stats.kendalltau(early, finals).statistic
    assert found[["step", "share", "n_trials"]].to_numpy().tolist() == [[10, 0.5, 6]]
    assert found["correlation"].tolist() == pytest.approx([expected])


def test_four_trials_say_nothing_about_rungs(full_url: str) -> None:
    with StudyReader(full_url) as reader:
        frame = trials_frame(reader, "study", ["accuracy"])
        assert fidelity_frame(reader, "study", frame[frame["number"] < 6], ACCURACY).empty


def test_ranks() -> None:
    """Oracle: scipy."""
    left, right = np.array([1.0, 2.0, 2.0, 5.0]), np.array([3.0, 1.0, 4.0, 9.0])
    assert rank_correlation(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    assert rank_correlation(left, np.ones(4)) is None
    assert rank_correlation(left[:2], right[:2]) is None
