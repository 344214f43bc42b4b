"""Where values stand on an axis, and which part of it is shown at first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from autopeft.export import format_short_count
from autopeft.objectives import Objective

#: From this many finished points on, those that are far worse than the rest are left outside at first.
_FEW = 8


def focus(points: pd.DataFrame, y: Objective, intervals: pd.DataFrame | None) -> tuple[float, float] | None:
    """Ends of the vertical axis that leave out what is far worse than the rest; None if nothing is.

    Far worse: more than 1.5 interquartile ranges beyond the quarter of the worst (Tukey's fence), among trials that
    were trained to the end. The front and the baselines are never left out.
    """
    values = y.sign * points[y.name].astype(float)
    is_kept = points["role"].isin(["front", "baseline"])
    ended = values[points["role"] != "pruned"]
    if len(ended) < _FEW:
        return None
    quarter, three = np.quantile(ended, [0.25, 0.75])
    fence = min(quarter - 1.5 * (three - quarter), values[is_kept].min() if is_kept.any() else np.inf)
    inside = values[values >= fence]
    low, high = float(inside.min()), float(inside.max())
    if intervals is not None and not intervals.empty:
        ends = y.sign * intervals.loc[intervals["number"].isin(points["number"]), ["low", "high"]].to_numpy()
        low, high = min([low, *ends.ravel()]), max([high, *ends.ravel()])
    # Leaving out what is near, or everything, would save no room.
    if high <= low or low - float(values.min()) < 0.75 * (high - low):
        return None
    margin = 0.06 * (high - low)
    one, other = y.sign * (low - margin), y.sign * (high + margin)
    return min(one, other), max(one, other)


class Place:
    """Where values stand on an axis; on a logarithmic one, none at all stands left of the smallest."""

    def __init__(self, values: pd.Series, item: Objective, budget: int | None) -> None:
        known = values.dropna().astype(float)
        positive = known[known > 0]
        wide = not positive.empty and positive.max() / positive.min() > 30
        self.is_log = (item.name == "trainable_parameters" or wide) and (known >= 0).all() and not positive.empty
        self.floor = 0.0
        self.axis: dict[str, object] = {}
        if not self.is_log:
            return
        ends = [float(positive.min()), float(positive.max())]
        if item.name == "trainable_parameters" and budget:
            ends.append(float(budget))
        low, high = math.log10(min(ends)), math.log10(max(ends))
        has_zero = bool((known == 0).any())
        self.floor = 10 ** (math.floor(low) - 0.4) if has_zero else 0.0
        ticks, texts = _log_ticks(low, high)
        if has_zero:
            ticks, texts = [self.floor, *ticks], ["0", *texts]
        start = math.log10(self.floor) - 0.2 if has_zero else low - 0.15
        self.axis = {"type": "log", "tickvals": ticks, "ticktext": texts, "range": [start, high + 0.15]}

    def __call__(self, values: pd.Series) -> np.ndarray:
        numbers = values.to_numpy(dtype=np.float64)
        return np.maximum(numbers, self.floor) if self.is_log else numbers

    def position(self, values: pd.Series) -> np.ndarray:
        """Where values stand along the axis in its own measure: the exponent of ten on a logarithmic one."""
        return self.scaled(self(values))

    def scaled(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Places on the axis in its own measure; a corner of a brush may be drawn anywhere."""
        numbers = np.asarray(values, dtype=np.float64)
        return np.log10(np.maximum(numbers, 1e-300)) if self.is_log else numbers


def _log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    steps = (1, 2, 5) if high - low < 2.2 else (1,)
    ticks = [step * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for step in steps]
    ticks = [tick for tick in ticks if low - 0.15 <= math.log10(tick) <= high + 0.15]
    return ticks, [format_short_count(tick) for tick in ticks]
