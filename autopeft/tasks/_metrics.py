"""Metrics: (predictions, targets) -> natural values. Directions are declared here; undefined values are absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autopeft.objectives import Direction

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def accuracy(predictions: IntArray, targets: IntArray) -> float | None:
    r"""Share of exact hits, :math:`\frac1n \sum_i [p_i = y_i]`, in [0, 1]; larger is better."""
    return float(np.mean(predictions == targets))


def f1(predictions: IntArray, targets: IntArray) -> float | None:
    r"""F1 of class 1, :math:`2 TP / (2 TP + FP + FN)`, in [0, 1]; None if class 1 occurs nowhere."""
    return _f1_of(1, predictions, targets)


def macro_f1(predictions: IntArray, targets: IntArray) -> float | None:
    """Mean F1 over the classes that occur among targets or predictions, in [0, 1]; larger is better."""
    scores = [_f1_of(int(label), predictions, targets) for label in np.union1d(predictions, targets)]
    return float(np.mean([score for score in scores if score is not None]))


def _f1_of(label: int, predictions: IntArray, targets: IntArray) -> float | None:
    predicted, actual = predictions == label, targets == label
    total = int(predicted.sum()) + int(actual.sum())
    return 2.0 * int((predicted & actual).sum()) / total if total else None


def matthews(predictions: IntArray, targets: IntArray) -> float | None:
    r"""Matthews correlation of any number of classes, in [-1, 1]; larger is better.

    With hits :math:`c`, examples :math:`s`, and how often class k was predicted (:math:`p_k`) and is true
    (:math:`t_k`):
    :math:`(c s - \sum_k p_k t_k) / \sqrt{(s^2 - \sum_k p_k^2)(s^2 - \sum_k t_k^2)}`.

    Returns:
        The coefficient; 0 by convention where predictions or targets are constant.
    """
    n_classes = int(max(predictions.max(), targets.max())) + 1
    # Python integers: the products outgrow 64 bits for large splits.
    predicted = [int(count) for count in np.bincount(predictions, minlength=n_classes)]
    actual = [int(count) for count in np.bincount(targets, minlength=n_classes)]
    hits, size = int((predictions == targets).sum()), int(targets.size)
    covariance = hits * size - sum(p * t for p, t in zip(predicted, actual, strict=True))
    spread = (size**2 - sum(p * p for p in predicted)) * (size**2 - sum(t * t for t in actual))
    return float(covariance / spread**0.5) if spread else 0.0


def pearson(predictions: FloatArray, targets: FloatArray) -> float | None:
    r"""Linear correlation :math:`\mathrm{cov}(p, y) / (\sigma_p \sigma_y)`, in [-1, 1]; larger is better.

    Returns:
        The coefficient; None where predictions or targets are constant, to rounding.
    """
    centered = [_centered(values) for values in (predictions, targets)]
    if centered[0] is None or centered[1] is None:
        return None
    return float(np.clip(centered[0] @ centered[1], -1.0, 1.0))


def spearman(predictions: FloatArray, targets: FloatArray) -> float | None:
    """Linear correlation of the ranks, ties at their mean rank, in [-1, 1]; None where one side is constant."""
    return pearson(_ranks(predictions), _ranks(targets))


def rmse(predictions: FloatArray, targets: FloatArray) -> float | None:
    r"""Root mean squared error :math:`\sqrt{\frac1n \sum_i (p_i - y_i)^2}`, in the labels' unit; smaller is better."""
    return float(np.sqrt(np.mean((predictions - targets) ** 2)))


def _centered(values: FloatArray) -> FloatArray | None:
    """Deviations from the mean, scaled to unit length; None if they are rounding noise."""
    scale = float(np.abs(values).max())
    if scale == 0:
        return None
    deviations: FloatArray = values / scale - np.mean(values / scale)
    length = float(np.linalg.norm(deviations))
    return deviations / length if length > 1e-13 * values.size**0.5 else None


def _ranks(values: FloatArray) -> FloatArray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: FloatArray = (last - (counts - 1) / 2.0)[inverse]
    return ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric that tasks name.

    Args:
        direction: Which way is better.
        compute: (predictions, targets) -> natural value, or None where it is undefined.
        low: Least value that it can have; None for no bound.
        high: Largest.
    """

    direction: Direction
    compute: Callable[[npt.NDArray[Any], npt.NDArray[Any]], float | None]
    low: float | None = 0.0
    high: float | None = 1.0


METRICS: dict[str, Metric] = {
    "accuracy": Metric(direction=Direction.MAXIMIZE, compute=accuracy),
    "f1": Metric(direction=Direction.MAXIMIZE, compute=f1),
    "macro_f1": Metric(direction=Direction.MAXIMIZE, compute=macro_f1),
    "matthews": Metric(direction=Direction.MAXIMIZE, compute=matthews, low=-1.0),
    "pearson": Metric(direction=Direction.MAXIMIZE, compute=pearson, low=-1.0),
    "spearman": Metric(direction=Direction.MAXIMIZE, compute=spearman, low=-1.0),
    "rmse": Metric(direction=Direction.MINIMIZE, compute=rmse, high=None),
}


def directions(names: Sequence[str]) -> Mapping[str, Direction]:
    """The metrics' directions in the order given; the first one is the primary metric."""
    return {name: METRICS[name].direction for name in names}


def compute_metrics(names: Sequence[str], predictions: npt.NDArray[Any], targets: npt.NDArray[Any]) -> dict[str, float]:
    """Compute metrics by name.

    Returns:
        Natural values; a metric that is undefined here is absent.
    """
    values = {name: METRICS[name].compute(predictions, targets) for name in names}
    return {name: value for name, value in values.items() if value is not None}
