"""What pruning saved and lost, told by the study itself. Oracle: the same world searched without a pruner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autopeft.pruners import PRUNING_NOTE, describe_pruning, pruning_report, rung_correlations
from autopeft.study import Front, Study, TrialState
from tests.pruners.simulated import (
    FIDELITY,
    N_STEPS,
    OBJECTIVES,
    RUNGS,
    SECONDS_PER_STEP,
    make_trial,
    make_world,
    pruner,
    simulate,
    volume,
)
from tests.study.builders import make_spec

#: Least share of the training saved, and least share of the hypervolume kept, on average over worlds.
EXPECTED = {"pareto": (0.25, 0.995), "median": (0.12, 0.99), "mo_asha": (0.38, 0.95)}
N_WORLDS = 6


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", EXPECTED)
def test_time_saved_and_front_lost_on_simulated_studies(name: str, workers: int) -> None:
    saved, kept = [], []
    for seed in range(N_WORLDS):
        world = make_world(seed, 40)
        whole, stopped = simulate(world, pruner("none")), simulate(world, pruner(name), workers=workers)
        report = pruning_report(stopped, rungs=RUNGS, n_steps=N_STEPS)
        steps = sum(trial.curve[-1].step for trial in stopped.trials)
        assert report["steps_saved"] == 40 * N_STEPS - steps
        assert report["share_saved"] == pytest.approx(1 - steps / (40 * N_STEPS))
        assert report["time_saved_s"] == pytest.approx(report["steps_saved"] * SECONDS_PER_STEP)
        saved.append(report["share_saved"])
        kept.append(volume(stopped, whole))
    least_saved, least_kept = EXPECTED[name]
    assert np.mean(saved) >= least_saved
    assert np.mean(kept) >= least_kept


@pytest.mark.slow
def test_ours_keeps_more_of_the_front_than_halving_and_saves_more_than_the_median() -> None:
    saved: dict[str, list[float]] = {name: [] for name in EXPECTED}
    kept: dict[str, list[float]] = {name: [] for name in EXPECTED}
    for seed in range(N_WORLDS):
        world = make_world(100 + seed, 40)
        whole = simulate(world, pruner("none"))
        for name in EXPECTED:
            stopped = simulate(world, pruner(name))
            saved[name].append(pruning_report(stopped, rungs=RUNGS, n_steps=N_STEPS)["share_saved"])
            kept[name].append(volume(stopped, whole))
    assert np.mean(kept["pareto"]) > np.mean(kept["mo_asha"])
    assert np.mean(saved["pareto"]) > np.mean(saved["median"])


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_is_stopped_where_rungs_say_nothing(name: str) -> None:
    """Before the correlation is known to be too low, few are: the interval of a few trials is wide."""
    shares = []
    for seed in range(4):
        study = simulate(make_world(seed, 60, is_informative=False), pruner(name))
        report = pruning_report(study, rungs=RUNGS, n_steps=N_STEPS)
        shares.append(report["share_saved"])
    assert np.mean(shares) < (0.02 if name == "pareto" else 0.25)


def test_report_of_a_study_counts_controls_and_continued_trials() -> None:
    def noted(trial, *reasons: str):
        return replace(trial, notes={PRUNING_NOTE: {"decisions": [{"reason": reason} for reason in reasons]}})

    best = noted(make_trial(0, 100, (0.5, 0.6, 0.9)), "control", "control")
    lost = noted(make_trial(1, 200, (0.4, 0.5, 0.6)), "control")
    plain = noted(make_trial(2, 300, (0.4, 0.5, 0.95)), "rule")
    stopped = make_trial(3, 200, (0.3,), state=TrialState.PRUNED)
    measured = make_trial(4, 200, (0.3, 0.4), state=TrialState.PRUNED).measurements
    again = make_trial(4, 400, (0.3, 0.4, 0.5))
    again = replace(again, measurements=(*measured, *again.measurements))
    spec = replace(make_spec(), objectives=OBJECTIVES, fidelity=FIDELITY, pruner="pareto")
    study = Study(spec=spec, trials=(best, lost, plain, stopped, again))
    report = pruning_report(study, rungs=RUNGS, n_steps=N_STEPS)
    assert (report["pruner"], report["n_pruned"], report["n_continued"]) == ("pareto", 1, 1)
    assert (report["steps_saved"], report["time_saved_s"]) == (80, pytest.approx(8.0))
    found = report["lost"]
    assert (found["n_controls"], found["n_on_front"], found["share"], found["members"]) == (2, 1, 0.5, 0.5)
    assert 0 < found["low"] < 0.5 < found["high"] < 1
    whole = Front.of(study.trials, OBJECTIVES)
    rest = Front.of([trial for trial in study.trials if trial.number not in (0, 1)], OBJECTIVES)
    assert {item.number for item in whole.trials} == {0, 2}
    assert rest.trials == (plain,)
    assert 0 < found["hypervolume_share"] < 1


def test_without_controls_nothing_is_said_of_what_was_lost() -> None:
    study = Study(spec=replace(make_spec(), objectives=OBJECTIVES, fidelity=FIDELITY), trials=())
    report = pruning_report(study, rungs=RUNGS, n_steps=N_STEPS)
    assert report["lost"] == {
        "n_controls": 0, "n_on_front": 0, "share": None, "low": None, "high": None, "members": None,
        "hypervolume_share": None,
    }  # fmt: skip
    assert (report["share_saved"], report["time_saved_s"]) == (0.0, 0.0)


@pytest.mark.slow
def test_the_share_lost_that_controls_tell_is_that_of_the_stopped_ones() -> None:
    """Halving, which loses members, over many worlds: both shares, of those stopped and of the controls, agree."""
    on_front, n_stopped, k, n = 0, 0, 0, 0
    for seed in range(12):
        world = make_world(seed, 40, noise=0.02)
        whole, study = simulate(world, pruner("none")), simulate(world, pruner("mo_asha"))
        members = {item.number for item in Front.of(whole.trials, OBJECTIVES).trials}
        stopped = {item.number for item in study.trials if item.state is TrialState.PRUNED}
        on_front, n_stopped = on_front + len(members & stopped), n_stopped + len(stopped)
        found = pruning_report(study, rungs=RUNGS, n_steps=N_STEPS)["lost"]
        k, n = k + found["n_on_front"], n + found["n_controls"]
    assert n > 40
    assert abs(k / n - on_front / n_stopped) < 0.1


def test_correlations_name_the_rungs_that_are_not_used() -> None:
    world = make_world(0, 30)
    trials = [make_trial(i, world.costs[i], world.scores[i]) for i in range(30)]

    def use(chosen) -> list[str]:
        rows = rung_correlations(chosen, objectives=OBJECTIVES, fidelity=FIDELITY, rungs=RUNGS, n_steps=N_STEPS)
        assert [(row["step"], row["objective"]) for row in rows] == [(10, "accuracy"), (30, "accuracy")]
        assert [row["share"] for row in rows] == [1 / 9, 1 / 3]
        return [row["use"] for row in rows]

    assert use(trials) == ["used", "used"]
    assert use(trials[:3]) == use([]) == ["not yet known"] * 2
    world = make_world(0, 60, is_informative=False)
    assert use([make_trial(i, world.costs[i], world.scores[i]) for i in range(60)]) == ["too low", "too low"]


def test_report_in_words() -> None:
    study = simulate(make_world(0, 60, noise=0.02), pruner("mo_asha"))
    lines = describe_pruning(pruning_report(study, rungs=RUNGS, n_steps=N_STEPS))
    assert lines[1].startswith("  after 10 of 90 steps, accuracy: 0.")
    assert lines[1].endswith(" trials, used")
    assert " stopped " in lines[3]
    assert "% of the search's training" in lines[3]
    assert "that it would have stopped, and that ran on to measure this" in lines[4]
    few = describe_pruning(pruning_report(replace(study, trials=study.trials[:3]), rungs=RUNGS, n_steps=N_STEPS))
    assert "not used" in few[1]
    assert few[3] == "Pruner none stopped no trial."


def test_report_without_controls_says_that_nothing_is_known() -> None:
    trials = (make_trial(0, 100, (0.5, 0.6, 0.9)), make_trial(3, 200, (0.3,), state=TrialState.PRUNED))
    study = Study(spec=replace(make_spec(), objectives=OBJECTIVES, fidelity=FIDELITY, pruner="pareto"), trials=trials)
    assert describe_pruning(pruning_report(study, rungs=RUNGS, n_steps=N_STEPS))[-1].startswith(
        "What that may have cost"
    )
