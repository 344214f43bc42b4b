"""What the value of a stopped trial says about the value it would have reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autopeft.study import CurvePoint, Trial, TrialState

#: Completed trials with a point near the rung, without which a stopped trial's value is taken as it is.
_MIN_COMPLETED = 3
#: A point of a curve is at a rung if their shares of the run differ by at most this.
_NEAR = 0.1
#: Ratio of the standard deviation of a normal distribution to its median absolute deviation.
_NORMAL = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gain:
    """From a rung to the end.

    Args:
        median: Natural units.
        spread: Robust standard deviation around it, >= 0.
    """

    median: float
    spread: float


class RungGains:
    """How much completed trials gained between a rung and their end, read off their learning curves.

    A stopped trial is an observation at a lower fidelity. Its value is moved by the median gain of the completed trials
    from the same share of their run, and the spread of these gains is noise of that observation alone: where rungs say
    little about the end, stopped trials teach little. With fewer than three such trials its value stays as it is, and
    so do objectives that curves do not report.

    Args:
        trials: Of the study; only completed ones are looked at.
        names: Of the measured objectives.
    """

    def __init__(self, trials: Sequence[Trial], names: Sequence[str]) -> None:
        self._names = names
        self._completed = [
            item for item in trials if item.state is TrialState.COMPLETE and curve_of(item) and _n_steps(item)
        ]
        self._found: dict[tuple[str, float], _Gain | None] = {}

    def extrapolate(self, trial: Trial, natural: Sequence[float]) -> tuple[list[float], tuple[float, ...]]:
        """Where a stopped trial would have ended.

        Args:
            trial: Stopped, with a measurement at a rung.
            natural: Natural values of the objectives there.

        Returns:
            Natural values expected at the end, and standard deviations of the errors of that expectation.
        """
        share = _share(trial)
        gains = [None if share is None else self._gain(name, share) for name in self._names]
        values = [value + (gain.median if gain else 0.0) for value, gain in zip(natural, gains, strict=True)]
        return values, tuple(gain.spread if gain else 0.0 for gain in gains)

    def _gain(self, name: str, share: float) -> _Gain | None:
        key = name, round(share, 3)
        if key not in self._found:
            self._found[key] = self._measure(name, share)
        return self._found[key]

    def _measure(self, name: str, share: float) -> _Gain | None:
        gains = []
        for trial in self._completed:
            end, n_steps = trial.value(name), _n_steps(trial)
            at_rung = [point for point in curve_of(trial) if abs(point.step / n_steps - share) <= _NEAR]
            point = min(at_rung, key=lambda item: abs(item.step / n_steps - share), default=None)
            if end is not None and point is not None and name in point.metrics:
                gains.append(end - point.metrics[name])
        if len(gains) < _MIN_COMPLETED:
            return None
        median = float(np.median(gains))
        return _Gain(median=median, spread=_NORMAL * float(np.median(np.abs(np.array(gains) - median))))


def curve_of(trial: Trial) -> tuple[CurvePoint, ...]:
    """The learning curve reported while it ran, or the one stored with its measurement."""
    found = trial.measurement()
    return trial.curve or (() if found is None else found.curve)


def _n_steps(trial: Trial) -> int:
    """Steps of a completed trial's run; 0 if its curve is empty."""
    return max((point.step for point in curve_of(trial)), default=0)


def _share(trial: Trial) -> float | None:
    """How far a stopped trial had come, as a share of its run; None if it does not say."""
    found = trial.measurement()
    return None if found is None or found.rung is None else found.rung.share
