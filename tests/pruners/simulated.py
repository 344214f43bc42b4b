"""Studies without training: synthetic learning curves, and a loop that prunes them as a search would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autopeft.objectives import COSTS, Direction, Objective, hypervolume, to_maximization
from autopeft.pruners import PRUNING_NOTE, Pruner, make_pruner, to_continue
from autopeft.study import (
    CurvePoint,
    Fidelity,
    Front,
    Measurement,
    Rung,
    Study,
    Trial,
    TrialDraft,
    TrialKind,
    TrialState,
)
from tests.study.builders import make_configuration, make_spec

ACCURACY = Objective(name="accuracy", direction=Direction.MAXIMIZE)
OBJECTIVES = (ACCURACY, COSTS["trainable_parameters"])
FIDELITY = Fidelity(train_examples=720, epochs=1)
N_STEPS, RUNGS = 90, (10, 30)
SECONDS_PER_STEP = 0.1


@dataclass(frozen=True, kw_only=True)
class World:
    """What every configuration would show: its cost, and its score at each rung and at the end.

    Args:
        costs: Trainable parameters (n,).
        scores: Accuracy (n x 3).
    """

    costs: np.ndarray
    scores: np.ndarray


def make_world(seed: int, n: int, *, noise: float = 0.01, is_informative: bool = True) -> World:
    """Configurations whose score grows with cost, with a part that cost does not explain.

    Curves rise exponentially, each at its own speed; the score at a rung is measured with more noise than the end. If
    rungs are not informative, they are noise altogether.
    """
    rng = np.random.default_rng(seed)
    costs = np.round(10 ** rng.uniform(2, 5, n)).astype(int)
    skill = 0.55 + 0.1 * (np.log10(costs) - 2) / 3 + 0.25 * rng.beta(2, 3, n)
    speed = rng.lognormal(np.log(8), 0.3, n)
    steps = np.array([*RUNGS, N_STEPS]) / N_STEPS
    curves = 0.5 + (skill - 0.5)[:, None] * (1 - np.exp(-speed[:, None] * steps))
    curves += noise * rng.standard_normal(curves.shape) * np.array([1.5, 1.0, 0.3])
    if not is_informative:
        curves[:, :2] = 0.5 + noise * rng.standard_normal((n, 2))
    return World(costs=costs, scores=np.clip(curves, 0, 1))


def make_trial(
    number: int,
    cost: int,
    scores: Sequence[float],
    *,
    state: TrialState = TrialState.COMPLETE,
    kind: TrialKind = TrialKind.SEARCH,
    fidelity: Fidelity = FIDELITY,
    notes: dict[str, object] | None = None,
) -> Trial:
    """A trial with as many points as scores: the rungs in their order, then the end."""
    steps = (*RUNGS, N_STEPS)[: len(scores)]
    curve = tuple(
        CurvePoint(
            step=step, epoch=step / N_STEPS, metrics={"accuracy": float(score)}, wall_time_s=SECONDS_PER_STEP * step
        )
        for step, score in zip(steps, scores, strict=True)
    )
    measurements: tuple[Measurement, ...] = ()
    if state in (TrialState.COMPLETE, TrialState.PRUNED) and curve:
        step = curve[-1].step
        measurements = (
            Measurement(
                split="search",
                fidelity=fidelity,
                seed=0,
                metrics=curve[-1].metrics,
                costs={"wall_time_s": curve[-1].wall_time_s},
                curve=curve,
                rung=None if state is TrialState.COMPLETE else Rung(step=step, n_steps=N_STEPS),
            ),
        )
    draft = TrialDraft(
        kind=kind,
        configuration=make_configuration(number + 1),
        trainable_parameters=int(cost),
        fidelity=fidelity,
        seed=0,
        label="baseline" if kind is TrialKind.BASELINE else None,
    )
    return Trial(number=number, draft=draft, state=state, measurements=measurements, curve=curve, notes=notes or {})


def pruner(name: str) -> Pruner:
    return make_pruner(name, objectives=OBJECTIVES, fidelity=FIDELITY, rungs=RUNGS)


def simulate(world: World, chosen: Pruner, *, workers: int = 1) -> Study:
    """Run a search over the world's configurations in their order, several at once, step by step."""
    trials: dict[int, Trial] = {}
    running: dict[int, int] = {}  # number -> points it has
    waiting = list(range(len(world.costs)))
    while waiting or running or to_continue(chosen, list(trials.values())):
        while len(running) < workers:
            again = to_continue(chosen, list(trials.values()))
            if again:
                number = again[0]
                running[number] = len(trials[number].curve)
            elif waiting:
                number = waiting.pop(0)
                running[number] = 0
            else:
                break
            trials[number] = _trial(world, number, running[number], TrialState.RUNNING, trials.get(number))
        # The one that has come least far reports next, as if all were equally fast.
        number = min(running, key=lambda item: (running[item], item))
        running[number] += 1
        _report(world, chosen, number, running, trials)
    return Study(spec=replace(make_spec(), objectives=OBJECTIVES, fidelity=FIDELITY), trials=_in_order(trials))


def _report(world: World, chosen: Pruner, number: int, running: dict[int, int], trials: dict[int, Trial]) -> None:
    n_points = running[number]
    state = TrialState.COMPLETE if n_points == len(RUNGS) + 1 else TrialState.RUNNING
    trials[number] = _trial(world, number, n_points, state, trials[number])
    if state is TrialState.COMPLETE:
        del running[number]
        return
    (decision,) = chosen.decide(list(trials.values()), [number])
    note = trials[number].notes.get(PRUNING_NOTE) or {"decisions": []}
    notes = {PRUNING_NOTE: {"decisions": [*note["decisions"], decision.to_dict()]}}  # type: ignore[index]
    trials[number] = replace(trials[number], notes=notes)
    if decision.stop:
        del running[number]
        trials[number] = _trial(world, number, n_points, TrialState.PRUNED, trials[number])


def _trial(world: World, number: int, n_points: int, state: TrialState, before: Trial | None) -> Trial:
    notes = {} if before is None else dict(before.notes)
    made = make_trial(number, world.costs[number], world.scores[number, :n_points], state=state, notes=notes)
    kept = () if before is None else before.measurements
    return replace(made, measurements=(*kept, *made.measurements))


def _in_order(trials: dict[int, Trial]) -> tuple[Trial, ...]:
    return tuple(trials[number] for number in sorted(trials))


def volume(study: Study, reference: Study) -> float:
    """Hypervolume of a study's front as a share of another's, on the logarithm of cost."""

    def points(found: Study) -> np.ndarray:
        front = Front.of(found.trials, OBJECTIVES).trials
        return np.array([[t.value("accuracy"), -np.log10(t.draft.trainable_parameters)] for t in front])

    corner = [0.5, -5.1]
    return hypervolume(points(study), corner) / hypervolume(points(reference), corner)


def maximized(values: np.ndarray) -> np.ndarray:
    """All-maximise form of rows of (accuracy, parameters)."""
    return to_maximization(values, OBJECTIVES)
