from __future__ import annotations

from dataclasses import replace

import numpy as np

from autopeft.objectives import COSTS, Direction, Objective
from autopeft.pruners._values import RungTable, natural_values
from autopeft.study import Fidelity, TrialKind, TrialState
from tests.pruners.simulated import ACCURACY, FIDELITY, OBJECTIVES, RUNGS, make_trial


def test_table_holds_search_trials_with_the_rung_and_says_who_is_done() -> None:
    trials = [
        make_trial(5, 300, (0.3, 0.4), state=TrialState.PRUNED),
        make_trial(0, 100, (0.5, 0.6, 0.7)),
        make_trial(1, 100, (0.9, 0.9, 0.9), kind=TrialKind.BASELINE),
        make_trial(2, 200, (0.4,), state=TrialState.RUNNING),
        make_trial(3, 200, (0.4, 0.5), state=TrialState.FAILED),
        make_trial(4, 200, (0.4, 0.5, 0.6), fidelity=Fidelity(train_examples=9, epochs=1)),
    ]
    first = RungTable.of(trials, step=RUNGS[0], objectives=OBJECTIVES, fidelity=FIDELITY)
    assert first.numbers == (0, 2, 5)
    assert first.here.tolist() == [[0.5, -100], [0.4, -200], [0.3, -300]]
    assert first.is_complete.tolist() == [True, False, False]
    assert first.end[0].tolist() == [0.7, -100]
    assert np.isnan(first.end[1:]).all()
    second = RungTable.of(trials, step=RUNGS[1], objectives=OBJECTIVES, fidelity=FIDELITY)
    assert second.numbers == (0, 5)


def test_front_and_cost_at_a_rung() -> None:
    trials = [
        make_trial(i, cost, (score, score, score))
        for i, (cost, score) in enumerate([(100, 0.5), (120, 0.4), (200, 0.6)])
    ]
    table = RungTable.of(trials, step=RUNGS[0], objectives=OBJECTIVES, fidelity=FIDELITY)
    assert [table.is_on_front(row) for row in range(3)] == [True, False, True]
    assert table.no_dearer(0).tolist() == [False, False, False]
    assert table.no_dearer(0, 1.25).tolist() == [False, True, False]
    assert table.no_dearer(2).tolist() == [True, True, False]


def test_a_cost_that_is_to_be_large_is_dear_where_it_is_small() -> None:
    many = replace(COSTS["trainable_parameters"], direction=Direction.MAXIMIZE)
    trials = [make_trial(i, cost, (0.5,), state=TrialState.RUNNING) for i, cost in enumerate((100, 90, 50))]
    table = RungTable.of(trials, step=RUNGS[0], objectives=(ACCURACY, many), fidelity=FIDELITY)
    assert table.no_dearer(0).tolist() == [False, False, False]
    assert table.no_dearer(0, 1.25).tolist() == [False, True, False]
    assert table.no_dearer(2).tolist() == [True, True, False]


def test_values_at_a_rung_are_metrics_time_and_known_costs() -> None:
    trial = make_trial(0, 100, (0.5, 0.6))
    loss = Objective(name="loss", direction=Direction.MINIMIZE)
    assert natural_values(trial, (ACCURACY, COSTS["wall_time_s"], COSTS["trainable_parameters"]), 10) == [
        0.5,
        1.0,
        100.0,
    ]
    assert natural_values(trial, (ACCURACY, loss), 10) is None
    assert natural_values(trial, (ACCURACY, COSTS["peak_memory_bytes"]), 10) is None
    assert natural_values(trial, (ACCURACY,), 11) is None


def test_costs_that_are_known_before_training_are_told_by_whoever_knows() -> None:
    stored = COSTS["stored_bytes"]
    running = make_trial(0, 100, (0.5,), state=TrialState.RUNNING)
    assert natural_values(running, (ACCURACY, stored), 10) is None
    assert natural_values(running, (ACCURACY, stored), 10, lambda trial, _: 4.0 * trial.draft.trainable_parameters) == [
        0.5,
        400.0,
    ]
