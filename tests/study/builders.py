"""Trials and studies for tests, without training."""

from __future__ import annotations

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.objectives import COSTS, Direction, Objective
from autopeft.study import (
    REPORT_SPLIT,
    SEARCH_SPLIT,
    Failure,
    Fidelity,
    Measurement,
    StudySpec,
    Trial,
    TrialDraft,
    TrialKind,
    TrialState,
)

ACCURACY = Objective(name="accuracy", direction=Direction.MAXIMIZE)
FIDELITY = Fidelity(train_examples=100, epochs=2)


def make_configuration(rank: int = 4, learning_rate: float = 1e-3) -> Configuration:
    return Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("lora", rank))], learning_rate=learning_rate)


def make_draft(
    *,
    rank: int = 4,
    learning_rate: float = 1e-3,
    cost: int = 1000,
    kind: TrialKind = TrialKind.SEARCH,
    seed: int = 0,
    label: str | None = None,
    parent: int | None = None,
) -> TrialDraft:
    return TrialDraft(
        kind=kind,
        configuration=make_configuration(rank, learning_rate),
        trainable_parameters=cost,
        fidelity=FIDELITY,
        seed=seed,
        params={"rank": rank} if kind is TrialKind.SEARCH else None,
        label=label,
        parent=parent,
    )


def make_measurement(
    accuracy: float, *, split: str = SEARCH_SPLIT, seed: int = 0, predictions: tuple[float, ...] | None = None
) -> Measurement:
    return Measurement(
        split=split,
        fidelity=FIDELITY,
        seed=seed,
        metrics={"accuracy": accuracy},
        costs={"wall_time_s": 1.5},
        predictions=predictions,
    )


def make_trial(
    number: int,
    accuracy: float | None,
    cost: int,
    *,
    kind: TrialKind = TrialKind.SEARCH,
    seed: int = 0,
    label: str | None = None,
    parent: int | None = None,
    report: float | None = None,
    predictions: tuple[float, ...] | None = None,
) -> Trial:
    """A complete trial, or a failed one if accuracy is None."""
    draft = make_draft(rank=number + 1, cost=cost, kind=kind, seed=seed, label=label, parent=parent)
    if accuracy is None:
        failure = Failure(reason="divergence", message="the loss became nan")
        return Trial(number=number, draft=draft, state=TrialState.FAILED, failure=failure)
    measurements = [make_measurement(accuracy, seed=seed)]
    if report is not None:
        measurements.append(make_measurement(report, split=REPORT_SPLIT, seed=seed, predictions=predictions))
    return Trial(number=number, draft=draft, state=TrialState.COMPLETE, measurements=tuple(measurements))


def make_spec(name: str = "study", budget: int = 5000, **changes: object) -> StudySpec:
    values: dict[str, object] = {
        "name": name,
        "task": {"name": "toy", "content_hash": "t"},
        "backbone": {"name": "tiny", "parameters": 100_000},
        "space": {"name": "default"},
        "budget": budget,
        "budget_text": "5%",
        "sampler": "random",
        "objectives": (ACCURACY, COSTS["trainable_parameters"]),
        "fidelity": FIDELITY,
        "training": {"batch_size": 8},
        "seed": 0,
    }
    return StudySpec(**{**values, **changes})  # type: ignore[arg-type]
