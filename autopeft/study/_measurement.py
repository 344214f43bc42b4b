"""What one training run showed: metrics and costs of one configuration at one fidelity and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEARCH_SPLIT = "search"
REPORT_SPLIT = "report"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fidelity:
    """How much training a measurement stands for.

    Args:
        train_examples: Examples of the training split used, >= 1.
        epochs: Passes over them, >= 1.
    """

    train_examples: int
    epochs: int

    def __post_init__(self) -> None:
        if self.train_examples < 1 or self.epochs < 1:
            raise ValueError(f"`train_examples >= 1` and `epochs >= 1` must hold, but got {self}.")

    def to_dict(self) -> dict[str, int]:
        return {"train_examples": self.train_examples, "epochs": self.epochs}


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A point of a learning curve.

    Args:
        step: Optimizer steps done.
        epoch: Epochs done, possibly fractional.
        metrics: Metrics on the search split, ``train_loss``, and what modules and dynamics counted (`statistics`).
        wall_time_s: Training time so far, in seconds.
        n_examples: Examples of the search split behind the metrics, the same ones in every run of a study; None for
            all of them.
    """

    step: int
    epoch: float
    metrics: Mapping[str, float]
    wall_time_s: float
    n_examples: int | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Metrics of the task, and ``train_loss``: what tables and measurements show."""
        return {name: value for name, value in self.metrics.items() if "." not in name}

    @property
    def statistics(self) -> dict[str, float]:
        """What modules and dynamics counted, by ``"<site>.<type>.<name>"`` or ``"dynamics.<name>"``.

        A mixture of experts has some numbers per site: hundreds in a model, too many for a table.
        """
        return {name: value for name, value in self.metrics.items() if "." in name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How far a run had come when it was measured, where that is not its end.

    Args:
        step: Optimizer steps done, in [1, n_steps).
        n_steps: Steps of the whole run.
        n_examples: Examples of the search split behind the metrics; None for all of them.
    """

    step: int
    n_steps: int
    n_examples: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.step < self.n_steps:
            raise ValueError(f"`1 <= step < n_steps` must hold, but got {self}.")
        if self.n_examples is not None and self.n_examples < 1:
            raise ValueError(f"`n_examples >= 1` must hold, but got {self}.")

    @property
    def share(self) -> float:
        """Of the run's steps, in (0, 1)."""
        return self.step / self.n_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Metrics and costs of one configuration at one fidelity and seed on one split.

    Args:
        split: ``"search"`` or ``"report"``.
        fidelity: How much training it stands for.
        seed: Seed of initialisation, data order and dropout.
        metrics: Natural values; a metric that could not be computed is absent, never a stand-in.
        costs: Keys of `autopeft.objectives.COSTS`; a cost that was not measured is absent.
        environment: Versions, device, precision and content hashes: where the numbers come from.
        curve: Learning curve of the run, by step.
        predictions: One prediction per example of the split (class index, or the regression value); None if not kept.
        rung: How far the run had come, if it was stopped before the fidelity's end; None at the end.
    """

    split: str
    fidelity: Fidelity
    seed: int
    metrics: Mapping[str, float]
    costs: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    predictions: tuple[float, ...] | None = None
    rung: Rung | None = None

    def __post_init__(self) -> None:
        if self.split not in (SEARCH_SPLIT, REPORT_SPLIT):
            raise ValueError(f"split must be {SEARCH_SPLIT!r} or {REPORT_SPLIT!r}, but got {self.split!r}.")
        for name, value in [*self.metrics.items(), *self.costs.items()]:
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, but got {value}; leave out what was not measured.")

    def value(self, name: str) -> float | None:
        """Natural value of an objective; None if it was not measured."""
        return self.metrics.get(name, self.costs.get(name))
