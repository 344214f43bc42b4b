import dataclasses

import numpy as np
import pytest

from autopeft.objectives import Constraint, Direction, Objective
from autopeft.samplers._history import Evidence, History, Outline, learned_constraints, measured_values
from autopeft.study import Fidelity, Trial, TrialKind, TrialState
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, SECONDS, make_trial, small_space

SPACE = small_space()
OBJECTIVES = (ACCURACY, SECONDS, PARAMETERS)


def configurations(n: int) -> list:
    rng = np.random.default_rng(0)
    return [SPACE.compile(SPACE.sample(rng)) for _ in range(n)]


def history(trials: list) -> History:
    return History.of(trials, objectives=OBJECTIVES, seed=0, fidelity=FIDELITY)


def test_measured_values_are_all_maximised() -> None:
    a, b = configurations(2)
    trials = [make_trial(0, a, SPACE, values=(0.6, 12.0)), make_trial(1, b, SPACE, values=(0.7, 9.0))]
    found = history(trials).observations
    assert measured_values(found, 2).tolist() == [[0.6, -12.0], [0.7, -9.0]]
    assert [item.evidence for item in found] == [Evidence.MEASURED] * 2


def test_states_become_evidence() -> None:
    a, b, c, d, e = configurations(5)
    trials = [
        make_trial(0, a, SPACE, values=(0.6, 12.0)),
        make_trial(1, b, SPACE, values=(0.5, 6.0), state=TrialState.PRUNED),
        make_trial(2, c, SPACE, state=TrialState.FAILED),
        make_trial(3, d, SPACE, state=TrialState.RUNNING),
        make_trial(4, e, SPACE, state=TrialState.WAITING),
    ]
    found = history(trials)
    assert [item.evidence for item in found.observations] == [
        Evidence.MEASURED,
        Evidence.PRUNED,
        Evidence.FAILED,
        Evidence.PENDING,
        Evidence.PENDING,
    ]
    assert found.taken == {item.configuration.fingerprint for item in trials}


def test_an_outline_is_the_history_without_observations() -> None:
    """Oracle: what is taken when everything is read."""
    a, b, c, d, e = configurations(5)
    trials = [
        make_trial(0, a, SPACE, values=(0.6, 12.0)),
        make_trial(1, b, SPACE, state=TrialState.FAILED),
        make_trial(2, c, SPACE, state=TrialState.WAITING),
    ]
    other = Fidelity(train_examples=FIDELITY.train_examples + 1, epochs=1)
    for number, changes in ((3, {"fidelity": other}), (4, {"seed": 7}), (5, {"kind": TrialKind.BASELINE})):
        draft = dataclasses.replace(make_trial(number, d if number < 5 else e, SPACE).draft, **changes)
        trials.append(Trial(number=number, draft=draft, state=TrialState.WAITING))
    seen = Outline(seed=0, fidelity=FIDELITY)
    # It grows, stays, is another one, and is a shorter one.
    for shown in ([], trials[:2], trials, tuple(trials), trials[1:], trials[:1], trials[::-1]):
        whole, outline = history(list(shown)), seen.update(shown)
        assert (outline.n_search, outline.taken, outline.observations) == (whole.n_search, whole.taken, ())


def test_blamed_failures_count_as_the_worst_measured_value_of_each_objective() -> None:
    """Pruned values do not set the worst: they were measured on less training."""
    a, b, c, d = configurations(4)
    trials = [
        make_trial(0, a, SPACE, values=(0.6, 12.0)),
        make_trial(1, b, SPACE, values=(0.7, 20.0)),
        make_trial(2, c, SPACE, values=(0.1, 99.0), state=TrialState.PRUNED),
        make_trial(3, d, SPACE, state=TrialState.FAILED, failure="out_of_memory"),
    ]
    assert history(trials).observations[-1].values == (0.6, -20.0)


def test_failures_say_nothing_while_nothing_is_measured() -> None:
    found = history([make_trial(0, configurations(1)[0], SPACE, state=TrialState.FAILED)])
    assert found.observations == ()
    assert len(found.taken) == 1


@pytest.mark.parametrize("reason", ["lost_worker", "error"])
def test_failures_that_are_not_the_configurations_fault_only_take_it(reason: str) -> None:
    a, b = configurations(2)
    trials = [
        make_trial(0, a, SPACE, values=(0.6, 1.0)),
        make_trial(1, b, SPACE, state=TrialState.FAILED, failure=reason),
    ]
    found = history(trials)
    assert [item.number for item in found.observations] == [0]
    assert b.fingerprint in found.taken


def test_trials_without_every_objective_are_no_observations() -> None:
    objectives = (Objective(name="f1", direction=Direction.MAXIMIZE), PARAMETERS)
    trial = make_trial(0, configurations(1)[0], SPACE, values=(0.6, 1.0))
    found = History.of([trial], objectives=objectives, seed=0, fidelity=FIDELITY)
    assert found.observations == ()
    assert len(found.taken) == 1


def test_other_fidelities_confirmations_and_seeds() -> None:
    a, b, c, d = configurations(4)
    trials = [
        make_trial(0, a, SPACE, values=(0.6, 1.0), fidelity=Fidelity(train_examples=100, epochs=3)),
        make_trial(1, b, SPACE, values=(0.6, 1.0), kind=TrialKind.CONFIRMATION),
        make_trial(2, c, SPACE, values=(0.6, 1.0), seed=7),
        make_trial(3, d, SPACE, values=(0.6, 1.0), kind=TrialKind.BASELINE),
    ]
    found = history(trials)
    assert [item.number for item in found.observations] == [2, 3]
    assert found.taken == {d.fingerprint}
    assert found.n_search == 2


def test_the_generator_depends_on_seed_and_number_of_search_trials_only() -> None:
    a, b, c = configurations(3)
    one = history([make_trial(0, a, SPACE, values=(0.6, 1.0))])
    other = history([make_trial(5, b, SPACE, state=TrialState.RUNNING)])
    with_baseline = history(
        [make_trial(0, c, SPACE, values=(0.6, 1.0), kind=TrialKind.BASELINE), make_trial(1, a, SPACE)]
    )
    two = history([make_trial(0, a, SPACE), make_trial(1, b, SPACE)])
    draws = [item.generator(3).random() for item in (one, other, with_baseline, two)]
    assert draws[0] == draws[1] == draws[2] != draws[3]
    assert one.generator(4).random() != draws[0]


def test_only_constraints_on_measured_quantities_are_learned() -> None:
    learned = Constraint.parse("wall_time_s<=30")
    others = [Constraint.parse("trainable_parameters<=1k"), Constraint.parse("export_class=lora")]
    assert learned_constraints([learned, *others]) == [learned]


def test_constrained_quantities_are_kept_as_they_were_measured() -> None:
    a, b, c, d = configurations(4)
    trials = [
        make_trial(0, a, SPACE, values=(0.6, 12.0)),
        make_trial(1, b, SPACE, state=TrialState.RUNNING),
        make_trial(2, c, SPACE, values=(0.6, 3.0), state=TrialState.PRUNED),
        make_trial(3, d, SPACE, state=TrialState.FAILED),
    ]
    found = History.of(
        trials,
        objectives=(ACCURACY, PARAMETERS),
        seed=0,
        fidelity=FIDELITY,
        constraints=(Constraint.parse("wall_time_s<=30"), Constraint.parse("peak_memory_bytes<=1G")),
    )
    # What a stopped trial took is not what the whole of it would have taken.
    assert [item.constrained for item in found.observations] == [(12.0, None), None, None, None]
