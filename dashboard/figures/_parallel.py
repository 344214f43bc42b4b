"""Parallel coordinates: every trial a line across its parameters, and what a visitor brushes on their axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from autopeft.objectives import Objective

from ._style import NEUTRAL, ORANGE, empty_figure, finish, plain, readable

Array = npt.NDArray[np.float64]

#: Gray to blue: an order that any color vision sees, on light pages and on dark ones.
_WORSE_TO_BETTER = [[0.0, "#B8B8B8"], [0.6, "#56B4E9"], [1.0, "#0072B2"]]
_N_SHADES = 8
#: Axes for parameters; there is no room for more.
_MOST_AXES = 14
#: Letters of a word beside an axis.
_MOST_LETTERS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelAxis:
    """One axis.

    Args:
        name: Of the parameter or the objective, as text that is shown letter by letter.
        places: Where each trial is, in the axis' own measure: the value, its exponent of ten, or the place of a word.
        ticks: Where words stand, ascending.
        texts: These words.
        spread: Room around each place within which the lines of all trials there are spread, in the same measure; 0
            where trials are told apart by their values.
    """

    name: str
    places: Array
    ticks: Array
    texts: tuple[str, ...]
    spread: float = 0.0

    @property
    def ends(self) -> tuple[float, float]:
        low, high = (float(f([f(self.places), f(self.ticks)])) for f in (np.min, np.max))
        return (low, high) if high > low else (low - 0.5, low + 0.5)

    def scaled(self, places: Array) -> Array:
        """From the axis' own measure to [0, 1], bottom to top."""
        low, high = self.ends
        return (places - low) / (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Trials across axes.

    Args:
        numbers: Of the trials.
        quality: What they are shaded by, more is better.
        axes: The last one is the objective; empty where there is too little to draw.
    """

    numbers: npt.NDArray[np.int64]
    quality: Array
    axes: tuple[ParallelAxis, ...]

    @property
    def ranks(self) -> Array:
        """Of each trial by quality, from -1 for the worst to 1 for the best."""
        n = len(self.quality)
        found = np.empty(n)
        found[np.argsort(self.quality, kind="stable")] = np.linspace(-1, 1, n)
        return found


def parallel_of(points: pd.DataFrame, values: Mapping[int, float], objective: Objective) -> Parallel:
    """Put trials on axes.

    Args:
        points: `params_frame`, the columns in the order in which axes are wanted.
        values: The objective's value by trial number.
        objective: What the lines are shaded by.
    """
    rows = points[points["number"].isin(list(values))]
    names = [name for name in rows.columns if name != "number" and rows[name].map(repr).nunique() > 1]
    numbers = rows["number"].to_numpy(dtype=np.int64)
    found = [values[int(number)] for number in numbers]
    axes = [_axis(name, rows[name].tolist()) for name in names[:_MOST_AXES]] if len(rows) > 1 else []
    if axes:
        axes.append(_axis(readable(objective.name), found))
    return Parallel(numbers=numbers, quality=objective.sign * np.array(found, dtype=np.float64), axes=tuple(axes))


def passing(parallel: Parallel, brush: Mapping[str, tuple[float, float]]) -> npt.NDArray[np.bool_]:
    """Which trials pass through every brushed part of an axis.

    Args:
        parallel: The trials.
        brush: Ends of the part, in the axis' own measure, by the axis' name; of axes that are not there nothing is
            asked.
    """
    found = np.ones(len(parallel.numbers), dtype=bool)
    for axis in parallel.axes:
        if axis.name in brush:
            low, high = brush[axis.name]
            found &= (axis.places >= low) & (axis.places <= high)
    return found


def brushed(parallel: Parallel, shapes: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """What was drawn in the picture asks for: of each axis that a shape crosses, else of the nearest, a part.

    Args:
        parallel: What was drawn.
        shapes: Corners as Plotly tells them, each with ``x`` and ``y`` in the measure of `parallel_figure`. Only where
            they end counts: a drag straight along an axis is a shape without width.
    """
    found: dict[str, tuple[float, float]] = {}
    if not parallel.axes:
        return found
    last = len(parallel.axes) - 1
    for shape in shapes:
        (left, right), (low, high) = ((min(shape[side]), max(shape[side])) for side in "xy")
        crossed = [i for i in range(len(parallel.axes)) if left <= i <= right]
        for i in crossed or [min(max(round((left + right) / 2), 0), last)]:
            axis = parallel.axes[i]
            start, end = axis.ends
            # Who brushes some of the lines at a word means the word.
            found[axis.name] = (
                start + low * (end - start) - axis.spread,
                start + high * (end - start) + axis.spread,
            )
    return found


def parallel_figure(
    parallel: Parallel,
    drawn: Collection[int],
    *,
    passed: Collection[int] | None = None,
    brush: Mapping[str, tuple[float, float]] | None = None,
) -> go.Figure:
    """Draw trials as lines across their parameters, shaded by quality, the best above the others.

    Axes stand at 0, 1, 2, ... across, from 0 at their low end to 1 at their high end.

    Args:
        parallel: `parallel_of`.
        drawn: Numbers of the trials drawn.
        passed: Numbers of those that pass what is brushed, the others being faint; None for all.
        brush: What is brushed, by the axis' name, as `brushed` gives it.
    """
    if not parallel.axes:
        return empty_figure("Fewer than two trials with different parameters have been measured.")
    is_drawn = np.isin(parallel.numbers, list(drawn))
    is_passed = is_drawn if passed is None else is_drawn & np.isin(parallel.numbers, list(passed))
    figure = go.Figure()
    _add_lines(figure, parallel, np.flatnonzero(is_drawn & ~is_passed), "rgba(140,140,140,0.15)", is_told=False)
    order = np.flatnonzero(is_passed)
    order = order[np.argsort(parallel.quality[order], kind="stable")]
    for color, rows in _shades(parallel.quality[order]):
        _add_lines(figure, parallel, order[rows], color, is_told=True)
    _add_axes(figure, parallel)
    for i, axis in enumerate(parallel.axes):
        if brush and axis.name in brush:
            low, high = np.clip(axis.scaled(np.array(brush[axis.name])), 0, 1)
            line = {"color": ORANGE, "width": 1.5}
            figure.add_shape(
                type="rect", x0=i - 0.07, x1=i + 0.07, y0=low, y1=high, line=line, fillcolor="rgba(213,94,0,0.25)"
            )
    finish(figure, height=420, legend=False)
    n = len(parallel.axes)
    figure.update_xaxes(
        side="top",
        tickvals=list(range(n)),
        ticktext=[axis.name for axis in parallel.axes],
        tickangle=-20,
        range=[-0.45, n - 0.4],
        ticklabeloverflow="allow",
        showgrid=False,
        fixedrange=True,
    )
    figure.update_yaxes(visible=False, range=[-0.08, 1.08], fixedrange=True)
    # Always a box: a straight drag along one axis is meant for that axis, not for all of them.
    figure.update_layout(dragmode="select", selectdirection="d", hovermode="closest", hoverdistance=8)
    return figure


def _shades(quality: Array) -> list[tuple[str, npt.NDArray[np.intp]]]:
    """Colors with the rows that have them, ascending: lines of one color are one path, which is quickly drawn."""
    if not len(quality):
        return []
    span = float(np.ptp(quality))
    share = (quality - quality.min()) / span if span > 0 else np.ones(len(quality))
    shade = np.minimum((share * _N_SHADES).astype(int), _N_SHADES - 1)
    colors = sample_colorscale(_WORSE_TO_BETTER, [i / (_N_SHADES - 1) for i in range(_N_SHADES)])
    return [(colors[i], np.flatnonzero(shade == i)) for i in range(_N_SHADES) if (shade == i).any()]


def _add_lines(figure: go.Figure, parallel: Parallel, rows: npt.NDArray[np.intp], color: str, *, is_told: bool) -> None:
    if not len(rows):
        return
    n = len(parallel.axes)
    table = np.full((len(rows), n + 1), np.nan)  # a gap after each line
    for i, axis in enumerate(parallel.axes):
        table[:, i] = axis.scaled(axis.places[rows] + axis.spread * parallel.ranks[rows])
    told = {
        "customdata": np.repeat(parallel.numbers[rows], n + 1),
        "hovertemplate": "trial %{customdata}<extra></extra>",
    }
    figure.add_trace(
        go.Scatter(
            x=np.tile(np.append(np.arange(n, dtype=np.float64), np.nan), len(rows)),
            y=table.ravel().round(4),
            mode="lines",
            line={"color": color, "width": 1.2},
            opacity=0.75 if is_told else 1.0,
            **(told if is_told else {"hoverinfo": "skip"}),
        )
    )


def _add_axes(figure: go.Figure, parallel: Parallel) -> None:
    """The axes themselves, and the words beside them."""
    n = len(parallel.axes)
    across = np.repeat(np.arange(n, dtype=np.float64), 3)
    up: list[float | None] = [0.0, 1.0, None] * n
    figure.add_trace(
        go.Scatter(x=across, y=up, mode="lines", line={"color": NEUTRAL, "width": 1.5}, hoverinfo="skip", name="axes")
    )
    places = [axis.scaled(axis.ticks) for axis in parallel.axes]
    figure.add_trace(
        go.Scatter(
            x=np.concatenate([np.full(len(up), i - 0.03) for i, up in enumerate(places)]),
            y=np.concatenate(places),
            text=[text for axis in parallel.axes for text in axis.texts],
            mode="text",
            textposition="middle left",
            textfont={"size": 11},
            # While somebody brushes, words stay words.
            unselected={"textfont": {"color": NEUTRAL}},
            hoverinfo="skip",
            name="words",
        )
    )


def _axis(name: str, values: Sequence[Any]) -> ParallelAxis:
    """Numbers where all are numbers, by logarithm if wide; else one place per word, inactive ones lowest."""
    missing = np.array([value is None or value != value for value in values])
    present = [value for value, absent in zip(values, missing, strict=True) if not absent]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
    if not numeric or (missing.any() and len(set(map(repr, present))) <= 8):
        words = sorted({_word(value) for value in present}, key=_order)
        order = {word: i for i, word in enumerate((["off"] if missing.any() else []) + words)}
        at = [0 if absent else order[_word(value)] for value, absent in zip(values, missing, strict=True)]
        texts = tuple(plain(_short(word)) for word in order)
        return ParallelAxis(
            name=plain(name),
            places=np.array(at, dtype=float),
            ticks=np.arange(len(order), dtype=float),
            texts=texts,
            # A twentieth of the axis, and always a gap between neighbors.
            spread=min(0.05 * max(len(order) - 1, 1), 0.35),
        )
    numbers = np.array([np.nan if absent else float(value) for value, absent in zip(values, missing, strict=True)])
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    is_log = low > 0 and high / low > 8
    places = np.log10(numbers) if is_log else numbers
    ends = (float(np.nanmin(places)), float(np.nanmax(places)))
    ticks = _ticks(ends, is_log=is_log, is_whole=all(float(value).is_integer() for value in present))
    texts = tuple(f"{10**tick if is_log else tick:.3g}" for tick in ticks)
    if missing.any():
        # Where it is off it has no number: a place of its own below all others.
        floor = ends[0] - 0.15 * max(ends[1] - ends[0], 1e-9)
        places = np.where(np.isnan(places), floor, places)
        ticks, texts = np.append(floor, ticks), ("off", *texts)
    return ParallelAxis(name=plain(name), places=places, ticks=ticks, texts=texts)


def _ticks(ends: Sequence[float], *, is_log: bool, is_whole: bool) -> Array:
    """Five places from end to end; for whole numbers at whole numbers."""
    even = np.linspace(ends[0], ends[1], 5)
    if not is_whole:
        return even
    whole = np.unique(np.round(10**even if is_log else even))
    return np.log10(whole) if is_log else whole


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(word: str) -> str:
    return word if len(word) <= _MOST_LETTERS else f"{word[: _MOST_LETTERS - 3]}..."


def _order(word: str) -> tuple[int, float, str]:
    try:
        return (0, float(word), "")
    except ValueError:
        return (1, 0.0, word)


def parallel_words(n_trials: int, objective: Objective) -> str:
    """Parallel coordinates in words."""
    return (
        f"Parallel coordinates: one line for each of {n_trials} trials across its parameters, bluer where "
        f"{readable(objective.name)} is better."
    )
