"""One configuration being, or having been, evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from autopeft.configuration import Configuration, OptionValue
from autopeft.study._measurement import SEARCH_SPLIT, CurvePoint, Fidelity, Measurement, Rung


class TrialState(StrEnum):
    """Where a trial is in its life. Append only: the values are stored."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def is_finished(self) -> bool:
        return self not in (TrialState.WAITING, TrialState.RUNNING)


class TrialKind(StrEnum):
    """Why a trial exists. Append only: the values are stored."""

    SEARCH = "search"
    BASELINE = "baseline"
    CONFIRMATION = "confirmation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a trial has no result.

    Args:
        reason: Short class of failure: ``"divergence"``, ``"out_of_memory"``, ``"lost_worker"``, ``"error"``.
        message: One sentence for people.
        traceback: Full traceback, None where there is none.
    """

    reason: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDraft:
    """A trial before the store gives it a number: what is asked for.

    Args:
        kind: Why it exists.
        configuration: What to train.
        trainable_parameters: Exact closed-form count, task head excluded.
        fidelity: How much training.
        seed: Seed of initialisation, data order and dropout.
        params: The point of the search space it came from; None for baselines and hand-made configurations.
        label: Name shown for baselines (``"LoRA r=8 on q,v"``); None otherwise.
        parent: Number of the trial that a confirmation repeats; None otherwise.
    """

    kind: TrialKind
    configuration: Configuration
    trainable_parameters: int
    fidelity: Fidelity
    seed: int
    params: Mapping[str, OptionValue] | None = None
    label: str | None = None
    parent: int | None = None

    @property
    def identity(self) -> tuple[str, str, int, int, int]:
        """What makes two drafts of a study the same run; the store keeps it unique.

        Search trials and baselines share one name space (a baseline is never trained twice as a search trial);
        confirmations have their own.
        """
        role = "confirmation" if self.kind is TrialKind.CONFIRMATION else "trial"
        return (role, self.configuration.fingerprint, self.fidelity.train_examples, self.fidelity.epochs, self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial as the store holds it.

    Args:
        number: Position in the study, from 0, without gaps, in order of creation over all kinds.
        draft: What was asked for.
        state: Where it is in its life.
        measurements: What was measured: at its end if COMPLETE, at the rungs where it was stopped (`Measurement.rung`)
            if PRUNED. A pruned trial that is continued keeps them.
        curve: Learning curve reported so far, also of unfinished and failed trials.
        failure: Why it FAILED; None in every other state.
        attempts: How often a worker has claimed it since it was added or continued.
        worker: Who claimed it last; None before the first claim.
    """

    number: int
    draft: TrialDraft
    state: TrialState
    measurements: tuple[Measurement, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    failure: Failure | None = None
    attempts: int = 0
    worker: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def kind(self) -> TrialKind:
        return self.draft.kind

    @property
    def configuration(self) -> Configuration:
        return self.draft.configuration

    def measurement(self, split: str = SEARCH_SPLIT) -> Measurement | None:
        """The measurement on a split: at the run's end, else at the last rung it was stopped at; None if none."""
        found = [item for item in self.measurements if item.split == split]
        return max(found, key=lambda item: math.inf if item.rung is None else item.rung.step, default=None)

    @property
    def rung(self) -> Rung | None:
        """Where a PRUNED trial was stopped, which is what `value` then stands for; None for every other trial."""
        found = self.measurement() if self.state is TrialState.PRUNED else None
        return None if found is None else found.rung

    def point(self, step: int) -> CurvePoint | None:
        """The learning curve's point at a step; None if there is none."""
        return next((item for item in self.curve if item.step == step), None)

    def value(self, name: str, split: str = SEARCH_SPLIT) -> float | None:
        """Natural value of an objective; known for every trial if exact, None if not measured.

        Of a PRUNED trial it is the value at its rung: less training, and often fewer examples, than others' (`rung`).
        """
        if name == "trainable_parameters":
            return float(self.draft.trainable_parameters)
        found = self.measurement(split)
        return None if found is None else found.value(name)
