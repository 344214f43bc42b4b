"""Values for store tests, and a clock that stands still until it is told otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.objectives import COSTS, Direction, Objective
from autopeft.store import TrialStore
from autopeft.study import (
    SEARCH_SPLIT,
    CurvePoint,
    Failure,
    Fidelity,
    Measurement,
    Rung,
    StudySpec,
    Trial,
    TrialDraft,
    TrialKind,
    TrialState,
)

FIDELITY = Fidelity(train_examples=100, epochs=2)
FAILURE = Failure(reason="divergence", message="the loss became nan", traceback="Traceback ...\n  boom")


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


def make_spec(name: str = "s", *, budget: int = 1000, seed: int = 0) -> StudySpec:
    return StudySpec(
        name=name,
        task={"name": "toy", "columns": ["text", "Größe"], "fraction": 0.1},
        backbone={"name": "tiny", "parameters": 12345},
        space={"name": "default", "parameters": {"rank": {"low": 1, "high": 8}}},
        budget=budget,
        budget_text="1%",
        sampler="random",
        objectives=(Objective(name="accuracy", direction=Direction.MAXIMIZE), COSTS["trainable_parameters"]),
        fidelity=FIDELITY,
        training={"batch_size": 16, "precision": "auto"},
        seed=seed,
    )


def make_draft(
    rank: int = 4,
    *,
    kind: TrialKind = TrialKind.SEARCH,
    seed: int = 0,
    fidelity: Fidelity = FIDELITY,
    label: str | None = None,
    parent: int | None = None,
) -> TrialDraft:
    configuration = Configuration.make(
        [(Site(layer=0, part="q"), ModuleSpec.make("lora", rank, dropout=0.1, scale=2.0))], learning_rate=1e-3
    )
    return TrialDraft(
        kind=kind,
        configuration=configuration,
        trainable_parameters=64 * rank,
        fidelity=fidelity,
        seed=seed,
        params={"rank": rank, "gated": True, "profile": "flat", "learning_rate": 1e-3},
        label=label,
        parent=parent,
    )


def make_point(step: int, loss: float = 0.5) -> CurvePoint:
    return CurvePoint(step=step, epoch=step / 10, metrics={"train_loss": loss, "accuracy": 0.1}, wall_time_s=step * 0.3)


def make_measurement(accuracy: float = 0.6, *, split: str = SEARCH_SPLIT, seed: int = 0) -> Measurement:
    return Measurement(
        split=split,
        fidelity=FIDELITY,
        seed=seed,
        metrics={"accuracy": accuracy, "f1": 0.1 + 0.2},
        costs={"wall_time_s": 1.5, "peak_memory_bytes": 123456789},
        environment={"versions": {"torch": "2.13.0"}, "device": "cpu", "hashes": ["ab", "cd"], "commit": None},
        curve=(make_point(1), make_point(2)),
        predictions=(0.0, 1.0, 2.0, 1.0),
    )


def ended(measurement: Measurement, state: TrialState) -> Measurement:
    """The measurement as a trial in this state has it: at its end, or at a rung."""
    return replace(measurement, rung=Rung(step=3, n_steps=9) if state is TrialState.PRUNED else None)


def claimed(store: TrialStore, study: str, worker: str = "w", **draft: Any) -> Trial:
    """Add a trial and claim it."""
    store.add_trial(study, make_draft(**draft))
    trial = store.claim_trial(study, worker, lease_s=60)
    assert trial is not None
    return trial
