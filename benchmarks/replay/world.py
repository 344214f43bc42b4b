"""A table as a world: its configurations are all there is, and its runs are what happens when one is trained."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from autopeft.backbones import describe_backbone
from autopeft.configuration import BoundSpace, OptionValue, parse_search_space
from autopeft.modules import MODULES
from autopeft.objectives import COSTS, Direction, Objective
from autopeft.samplers._encoding import Encoder
from autopeft.samplers._points import Point, PointSource
from autopeft.study import CurvePoint, Fidelity

Array = npt.NDArray[np.float64]

#: Decades below the budget in which a smaller configuration counts as better: at 2 % of MiniLM, down to 454 parameters,
#: which is less than any module but the very smallest.
DECADES = 3.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One configuration trained with one seed.

    Args:
        value: Metric on the search split at the end; None if the run failed.
        failure: Why it failed; None if it did not.
        curve: Metric at the rungs, the end included.
        wall_time_s: How long it took, until it failed if it did.
        peak_memory_bytes: While it trained; None if unknown.
    """

    value: float | None
    failure: str | None
    curve: tuple[CurvePoint, ...]
    wall_time_s: float
    peak_memory_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A configuration of the table.

    Args:
        point: As the search space says it.
        kind: How it was drawn: "random", "family", ...
        runs: By seed.
    """

    point: Point
    kind: str
    runs: Mapping[int, Run]


@dataclass(frozen=True, kw_only=True)
class World:
    """A table, read.

    Args:
        name: Of the table.
        metric: What is maximised.
        space: The search space that its configurations are points of.
        fidelity: Of every run.
        rows: By fingerprint.
        seeds: Seeds of every row's runs.
        decades: See `DECADES`.
        margin: Decades above the budget at which the reference point lies.
        about: The table's own description.
    """

    name: str
    metric: str
    space: BoundSpace
    fidelity: Fidelity
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    decades: float = DECADES
    margin: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"table {self.name} has no configuration that was run with every seed of {self.seeds}.")
        if self.space.budget is None:
            raise ValueError(f"table {self.name} has no budget, but hypervolumes are counted from it.")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Quality and parameters."""
        return Objective(name=self.metric, direction=Direction.MAXIMIZE), COSTS["trainable_parameters"]

    @cached_property
    def digest(self) -> str:
        """Identity of everything that a replay can see."""
        seen = [
            (row.point.fingerprint, seed, run.value, [point.metrics for point in run.curve], run.wall_time_s)
            for row in self.rows
            for seed, run in sorted(row.runs.items())
        ]
        return hashlib.sha256(json.dumps([self.name, self.space.budget, self.decades, seen]).encode()).hexdigest()[:12]

    @cached_property
    def index(self) -> dict[str, int]:
        """Row numbers by fingerprint."""
        return {row.point.fingerprint: i for i, row in enumerate(self.rows)}

    @cached_property
    def truth(self) -> Array:
        """Mean metric over the seeds (n,); NaN where a seed failed, which no front contains."""
        found = [[row.runs[seed].value for seed in self.seeds] for row in self.rows]
        return np.array(
            [math.nan if None in values else np.mean([v for v in values if v is not None]) for values in found]
        )

    @cached_property
    def log_costs(self) -> Array:
        """log10(1 + parameters) (n,), not below the floor."""
        counts = np.array([row.point.trainable_parameters for row in self.rows], dtype=np.float64)
        return np.maximum(np.log10(1 + counts), self.log_budget - self.decades)

    @property
    def log_budget(self) -> float:
        """log10(1 + budget): the reference point's cost."""
        return math.log10(1 + (self.space.budget or 0))

    @cached_property
    def worst(self) -> float:
        """The reference point's quality: the worst mean of the table, in practice a constant answer."""
        return float(np.nanmin(self.truth))

    @cached_property
    def codes(self) -> Array:
        """Encoded configurations (n x d)."""
        return self.encode([row.point for row in self.rows])

    def encode(self, points: Sequence[Point]) -> Array:
        """Codes of any points of the space (k x d)."""
        return self._encoder.encode(points)

    def nearest(self, params: Mapping[str, OptionValue], rows: Sequence[int]) -> int | None:
        """Which of some rows is nearest to a point in encoded distance, itself if it is among them.

        None if the point has no configuration within the budget.
        """
        point = self._points.make(params)
        if point is None:
            return None
        row = self.index.get(point.fingerprint)
        if row is not None and row in rows:
            return row
        distance = np.square(self.codes[list(rows)] - self.encode([point])[0]).sum(axis=1)
        return rows[int(distance.argmin())]

    @cached_property
    def _points(self) -> PointSource:
        return PointSource(self.space)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.space)

    def hypervolumes(self, order: Sequence[int], without: Collection[int] = ()) -> Array:
        """Hypervolume of the true values of the first 1, 2, ... rows, as shares of that of the whole table.

        Args:
            order: Row numbers (k,).
            without: Positions in `order` that do not count: what was stopped early has not been found.

        Returns:
            Shares in [0, 1] (k,), not decreasing.
        """
        return self._volumes(order, without) / self._volumes(range(len(self)), ())[-1]

    def chosen_quality(self, order: Sequence[int], seed: int, without: Collection[int] = ()) -> Array:
        """True quality of the row that looked best, at that seed, among the first 1, 2, ... rows (k,).

        NaN as long as nothing has been measured.
        """
        found = np.full(len(order), np.nan)
        best, here = -math.inf, math.nan
        for i, row in enumerate(order):
            value = self.rows[row].runs[seed].value
            if value is not None and value > best and i not in without:
                best, here = value, float(self.truth[row])
            found[i] = here
        return found

    def restricted(self, keep: Callable[[Row], bool]) -> World:
        """The table with some of its rows only; shares of hypervolume are then those of its own front."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)))

    def _volumes(self, order: Sequence[int], without: Collection[int]) -> Array:
        volumes = np.empty(len(order))
        front: list[tuple[float, float]] = []  # (gain in quality, decades saved), by falling gain
        for i, row in enumerate(order):
            gain, saved = (
                float(self.truth[row]) - self.worst,
                self.log_budget + self.margin - float(self.log_costs[row]),
            )
            if i not in without and gain > 0 and saved > 0 and not any(g >= gain and s >= saved for g, s in front):
                front = [(g, s) for g, s in front if g > gain or s > saved]
                front = sorted([*front, (gain, saved)], reverse=True)
            lower = [0.0, *(s for _, s in front[:-1])]
            volumes[i] = sum(g * (s - before) for (g, s), before in zip(front, lower, strict=False))
        return volumes


def read_world(path: Path) -> World:
    """Read a table that `benchmarks/table.py` wrote.

    The points are compiled again; a table whose configurations come out differently is refused.

    Args:
        path: Parquet file. Configurations that lack a seed are left out.
    """
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"autopeft"])
    space = BoundSpace(
        space=parse_search_space(about["space"], MODULES, source=str(path)),
        shapes=describe_backbone(about["backbone"]).shapes,
        module_types=MODULES,
        budget=about["budget"],
    )
    setting = about["world"]
    fidelity = Fidelity(train_examples=setting["train_examples"], epochs=setting["epochs"])
    return make_world(path.stem, table.to_pylist(), about, space, fidelity)


def make_world(
    name: str, records: Sequence[Mapping[str, Any]], about: Mapping[str, Any], space: BoundSpace, fidelity: Fidelity
) -> World:
    """Build a world from the records of a table.

    Args:
        name: Of the table.
        records: One per configuration and seed, as `benchmarks/table.py` writes them.
        about: With "metric" and "seeds".
        space: Of which the records' params are points.
        fidelity: Of the runs.

    Raises:
        ValueError: If params do not compile to the configuration that was run.
    """
    points = PointSource(space)
    seeds = tuple(about["seeds"])
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["fingerprint"], []).append(record)
    rows = []
    for fingerprint, group in sorted(groups.items()):
        runs = {record["seed"]: _run(record, about["metric"], fidelity) for record in group}
        if set(runs) < set(seeds):
            continue
        point = points.make(json.loads(group[0]["params"]))
        if point is None or point.fingerprint != fingerprint:
            raise ValueError(
                f"table {name}: the params of {group[0]['configuration']} no longer compile to configuration "
                f"{fingerprint} that was trained; write the table again."
            )
        rows.append(Row(point=point, kind=group[0]["kind"], runs=runs))
    return World(
        name=name,
        metric=about["metric"],
        space=space,
        fidelity=fidelity,
        rows=tuple(rows),
        seeds=seeds,
        about={key: value for key, value in about.items() if key != "space"},
    )


def _run(record: Mapping[str, Any], metric: str, fidelity: Fidelity) -> Run:
    steps, values, times = record["steps"] or [], record[metric] or [], record["curve_time_s"] or []
    n_steps = max(steps, default=1)
    curve = tuple(
        CurvePoint(step=step, epoch=fidelity.epochs * step / n_steps, metrics={metric: value}, wall_time_s=time)
        for step, value, time in zip(steps, values, times, strict=True)
        if value is not None and math.isfinite(value)
    )
    failed = record["failure"]
    is_measured = failed is None and bool(values) and curve and curve[-1].step == n_steps
    return Run(
        value=float(curve[-1].metrics[metric]) if is_measured else None,
        failure=None if is_measured else failed or "error",
        curve=curve,
        wall_time_s=float(record["wall_time_s"] or (times[-1] if times else 1.0)),
        peak_memory_bytes=record["peak_memory_bytes"],
    )
