"""Very many points: which of them are drawn, and which lie in what a visitor has drawn around them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autopeft.objectives import Objective

from ._axes import Place, focus

#: Points of the crowd that are drawn; more are not told apart, and a browser without a graphics card takes long.
MOST_DRAWN = 1500
#: Roles of which there may be thousands, and of which one more or less changes nothing.
CROWDED = ("dominated", "pruned", "infeasible")
#: Cells that the picture is divided into, across and up.
_CELLS = (48, 32)


def with_both(frame: pd.DataFrame, x: Objective, y: Objective, hidden: Collection[str] = ()) -> pd.DataFrame:
    """Trials with a role that is not hidden and with both values."""
    points = frame[frame["role"].notna() & ~frame["role"].isin(list(hidden))]
    return points[points[x.name].notna() & points[y.name].notna()]


def thinned(
    points: pd.DataFrame, x: Objective, y: Objective, *, kept: Collection[int] = (), most: int = MOST_DRAWN
) -> pd.DataFrame:
    """As many points as a picture needs to look like all of them.

    The front and the baselines stay whole. The picture is divided into cells; the others are taken from all cells in
    turn, the newest of each first, so that outline and lonely points stay and only what lies on top of each other goes.

    Args:
        points: `with_both`.
        x: Across.
        y: Up.
        kept: Numbers of trials that stay whatever they are.
        most: Points of the crowd that stay about, >= 1; each of its roles gets its share.

    Returns:
        The rows that stay, in their order.
    """
    crowd = points[points["role"].isin(CROWDED) & ~points["number"].isin(list(kept))]
    if len(crowd) <= most:
        return points
    cells = _cells(points, x, y).loc[crowd.index]
    newest = pd.DataFrame({"role": crowd["role"], "cell": cells, "number": crowd["number"]}).sort_values(
        "number", ascending=False
    )
    newest["turn"] = newest.groupby(["role", "cell"]).cumcount()
    newest = newest.sort_values(["turn", "number"], ascending=[True, False])
    stays: list[int] = []
    for _, rows in newest.groupby("role"):
        stays.extend(rows.index[: max(math.ceil(most * len(rows) / len(crowd)), 1)])
    return points.loc[points.index.difference(crowd.index).union(stays)]


def _cells(points: pd.DataFrame, x: Objective, y: Objective) -> pd.Series:
    """The cell of each point; what the picture leaves outside at first belongs to the cells at its edge."""
    found = []
    for item, n in zip((x, y), _CELLS, strict=True):
        place = Place(points[item.name], item, None)
        values = place.position(points[item.name])
        ends = focus(points, y, None) if item is y and not place.is_log else None
        low, high = ends or (float(values.min()), float(values.max()))
        found.append(np.clip((values - low) / max(high - low, 1e-300) * n, 0, n - 1).astype(int))
    return pd.Series(found[0] * _CELLS[1] + found[1], index=points.index)


def inside(
    points: pd.DataFrame,
    selection: Mapping[str, Any],
    *,
    x: Objective,
    y: Objective,
    budget: int | None,
) -> list[int]:
    """Numbers of the trials within what was drawn around them, whether or not each has a point in the picture.

    Args:
        points: `with_both`.
        selection: ``box`` and ``lasso`` as Plotly tells them: corners at values of the axes, each with ``x`` and ``y``.
        x: Across.
        y: Up.
        budget: As the picture was drawn with.
    """
    if points.empty:
        return []
    places = [Place(points[item.name], item, budget) for item in (x, y)]
    across, up = (place.position(points[item.name]) for place, item in zip(places, (x, y), strict=True))
    found = np.zeros(len(points), dtype=bool)
    for shape in selection.get("box", ()):
        (left, right), (low, high) = (
            _ends(place.scaled(shape[side])) for place, side in zip(places, "xy", strict=True)
        )
        found |= (across >= left) & (across <= right) & (up >= low) & (up <= high)
    for shape in selection.get("lasso", ()):
        corners = [place.scaled(shape[side]) for place, side in zip(places, "xy", strict=True)]
        found |= _within(across, up, *corners)
    return [int(number) for number in points.loc[found, "number"]]


def _ends(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _within(
    across: npt.NDArray[np.float64],
    up: npt.NDArray[np.float64],
    xs: Sequence[float] | npt.NDArray[np.float64],
    ys: Sequence[float] | npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Whether points lie within a polygon: a ray from each crosses its edges an odd number of times."""
    found = np.zeros(len(across), dtype=bool)
    for (x0, y0), (x1, y1) in zip(
        zip(xs, ys, strict=True), zip(np.roll(xs, -1), np.roll(ys, -1), strict=True), strict=True
    ):
        if y0 == y1:
            continue
        crosses = (y0 > up) != (y1 > up)
        found ^= crosses & (across < x0 + (up - y0) / (y1 - y0) * (x1 - x0))
    return found
