"""What the inner loop is asked for and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from autopeft.configuration import Configuration
from autopeft.study import REPORT_SPLIT, SEARCH_SPLIT, CurvePoint, Failure, Fidelity, Measurement

#: Called with a job's index and the curve of an earlier part of its run that is gone on from; True ends it there.
ResumeCallback = Callable[[int, tuple[CurvePoint, ...]], bool]

#: Called with a job's index and a new point of its learning curve; True stops this job early.
PointCallback = Callable[[int, CurvePoint], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training run that is asked for.

    Args:
        configuration: What to train.
        seed: Of initialisation, data order and dropout, >= 0.
        fidelity: How much training.
        splits: Splits to score at the end; the learning curve is always measured on the search split.
        measures_rungs: Whether the curve has points at the rungs; they cost time, and only who may be stopped there
            needs them.
    """

    configuration: Configuration
    seed: int
    fidelity: Fidelity
    splits: tuple[str, ...] = (SEARCH_SPLIT,)
    measures_rungs: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"`seed >= 0` must hold, but got {self.seed}.")
        unknown = set(self.splits) - {SEARCH_SPLIT, REPORT_SPLIT}
        if unknown or not self.splits:
            raise ValueError(f"splits must be some of {SEARCH_SPLIT!r} and {REPORT_SPLIT!r}, but got {self.splits}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended.

    Args:
        measurements: One per split asked for, in that order; empty if it failed, and the search split's alone if it was
            stopped early.
        curve: The learning curve, also of failed and stopped runs.
        failure: Why there is no result; None if there is one.
        is_stopped_early: Whether the point callback ended it; its measurement is then that of the curve's last point.
        state: Trained tensors on the CPU, float32, by name; None unless asked for.
    """

    measurements: tuple[Measurement, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    failure: Failure | None = None
    is_stopped_early: bool = False
    state: dict[str, Tensor] | None = None
