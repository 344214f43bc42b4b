"""Studies of a real space with trials of every kind and state, without training."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from autopeft.configuration import BoundSpace
from autopeft.objectives import Objective
from autopeft.samplers import make_sampler
from autopeft.study import (
    REPORT_SPLIT,
    SEARCH_SPLIT,
    CurvePoint,
    Failure,
    Measurement,
    Study,
    StudySpec,
    Trial,
    TrialKind,
    TrialState,
)
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, Problem, run, small_space

START = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


def make_spec(
    space: BoundSpace, *, name: str = "toy", objectives: tuple[Objective, ...] = (ACCURACY, PARAMETERS), seed: int = 0
) -> StudySpec:
    return StudySpec(
        name=name,
        task={"name": "toy", "content_hash": name},
        backbone={"name": "tiny", "parameters": 12_345_678, "n_layers": space.shapes.n_layers},
        space=space.space.to_dict(),
        budget=space.budget or 10**9,
        budget_text="1%",
        sampler="bayesian",
        objectives=objectives,
        fidelity=FIDELITY,
        training={"batch_size": 16},
        seed=seed,
    )


def make_study(
    n: int = 10,
    *,
    name: str = "toy",
    seed: int = 0,
    space: BoundSpace | None = None,
    objectives: tuple[Objective, ...] = (ACCURACY, PARAMETERS),
) -> Study:
    """A random search: one trial failed, one was pruned, one runs, one waits; a baseline and a confirmation."""
    space = space or small_space()
    sampler = make_sampler("random", space=space, objectives=objectives, seed=seed, fidelity=FIDELITY)
    trials = [_timed(item) for item in run(sampler, Problem(space, seed=seed), n)]
    trials[2] = replace(
        trials[2],
        state=TrialState.FAILED,
        measurements=(),
        failure=Failure(reason="divergence", message="the loss became nan"),
    )
    trials[3] = replace(trials[3], state=TrialState.PRUNED, notes={"suggestion": {"source": "model"}})
    trials[4] = replace(trials[4], state=TrialState.RUNNING, measurements=(), finished_at=None)
    trials[5] = replace(trials[5], state=TrialState.WAITING, measurements=(), started_at=None, finished_at=None)
    best = max((item for item in trials if item.state is TrialState.COMPLETE), key=lambda t: t.value("accuracy") or 0)
    trials.append(_variant(best, n, kind=TrialKind.BASELINE, params=None, label="LoRA r=8 on q,v"))
    trials.append(_variant(best, n + 1, kind=TrialKind.CONFIRMATION, seed=7, parent=best.number))
    attributes = {"summary": {"headline": "Better.", "recommended": best.number}, "command": "autopeft search"}
    return Study(spec=make_spec(space, name=name, objectives=objectives), trials=tuple(trials), attributes=attributes)


def _timed(trial: Trial) -> Trial:
    started = START + timedelta(seconds=20 * trial.number)
    curve = tuple(
        CurvePoint(step=10 * (i + 1), epoch=0.5 * (i + 1), metrics={"accuracy": 0.4 + 0.1 * i}, wall_time_s=2.0 + i)
        for i in range(2)
    )
    return replace(
        trial,
        curve=curve,
        worker="host:1:2",
        created_at=started,
        started_at=started,
        finished_at=started + timedelta(seconds=12.5),
    )


def _variant(trial: Trial, number: int, **changes: object) -> Trial:
    measurements = trial.measurements
    if changes["kind"] is TrialKind.CONFIRMATION:
        report = Measurement(split=REPORT_SPLIT, fidelity=FIDELITY, seed=7, metrics={"accuracy": 0.61})
        measurements = (*(replace(item, seed=7) for item in measurements if item.split == SEARCH_SPLIT), report)
    return replace(trial, number=number, draft=replace(trial.draft, **changes), measurements=measurements)
