from __future__ import annotations

import pytest
from scipy import stats

from autopeft.store import StudyReader, open_store
from dashboard.queries import fidelity_frame, rung_frame, rung_steps, trials_frame
from tests.dashboard.studies import draft, lora, params, run, spec
from tests.study.builders import ACCURACY


def test_early_order_against_the_end(url: str) -> None:
    """Oracle: scipy's Kendall tau of the values that the fixture reports at half time."""
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


def test_what_the_pruner_reported_is_read_as_far_as_it_is_there() -> None:
    row = {"step": 10, "share": 0.25, "objective": "accuracy", "n": 6, "tau": 0.5, "low": 0.1, "high": 0.8}
    report = {"rungs": [10, 20], "correlations": [{**row, "use": "used"}, {**row, "step": 20, "tau": None}, "text", {}]}
    frame = rung_frame({"pruning": report})
    assert frame["step"].tolist() == [10, 20]
    assert frame["tau"].tolist() == pytest.approx([0.5, float("nan")], nan_ok=True)
    assert rung_steps({"pruning": report}) == [10, 20]
    for odd in ({}, {"pruning": "text"}, {"pruning": {"correlations": "x", "rungs": 3}}, {"pruning": {"rungs": ["a"]}}):
        assert rung_frame(odd).empty
        assert rung_steps(odd) == []


def test_the_report_of_the_pruners_is_understood() -> None:
    """Oracle: what `autopeft.pruners` writes."""
    from autopeft.pruners import pruning_report
    from autopeft.study import Study

    report = pruning_report(Study(spec=spec(), trials=()), rungs=(10, 20), n_steps=40)
    frame = rung_frame({"pruning": report})
    assert frame[["step", "share", "objective", "n"]].to_numpy().tolist() == [
        [10, 0.25, "accuracy", 0],
        [20, 0.5, "accuracy", 0],
    ]
