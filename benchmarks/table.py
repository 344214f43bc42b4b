"""A table of configurations that were really trained: the world on which searches are compared.

`run` draws configurations of the default space and trains each under every seed; `write` turns what is finished into a
compressed Parquet file. The trials are those of an ordinary study, so the same command resumes, several processes (or
machines that share the database) work on one table together, and any executor can run them.

    python benchmarks/table.py run --task cola --data-dir PATH/TO/glue --db sqlite:///tables.db
    python benchmarks/table.py write --task cola --data-dir PATH/TO/glue --db sqlite:///tables.db

Configurations, in an order that mixes the kinds so that an unfinished table is a random part of the finished one:

- random: uniform draws of the space;
- family: one module family alone, at a random size, profile, learning rate and choice of layers;
- autopeft: serial and parallel adapters and prefixes on a free choice of layers (the space of arXiv 2301.12132);
- neighbor: one exchange away from members of the front of the first three kinds, once these are finished.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autopeft.configuration import BoundSpace, OptionValue
from autopeft.exceptions import TrialConflictError
from autopeft.objectives import non_dominated_mask
from autopeft.orchestrate import LocalExecutor, PreparedSearch, SearchSettings, SilentProgress, load_runner, prepare
from autopeft.samplers._points import Point, PointSource
from autopeft.store import TrialStore, open_store
from autopeft.study import Trial, TrialDraft, TrialKind, TrialState
from autopeft.tasks import Split, Task, stratified_order

TABLES = Path(__file__).parent / "tables"
BUDGET = "2%"
#: Configurations of each kind, and seeds of each configuration.
COUNTS = {"random": 150, "family": 130, "autopeft": 60, "neighbor": 80}
SEEDS = (0, 1)
#: Curve points per run, evenly spaced.
RUNGS = 3

FAMILIES: dict[str, dict[str, OptionValue]] = {
    "lora": {"lora": True, "lora_kind": "dense"},
    "moe_lora": {"lora": True, "lora_kind": "experts"},
    "serial_adapter": {"serial_adapter": True},
    "parallel_adapter": {"parallel_adapter": True},
    "prefix": {"prefix": True},
    "sparse": {"sparse": True},
    "ia3": {"affine": True, "affine_kind": "ia3"},
    "bitfit": {"affine": True, "affine_kind": "bitfit"},
    "ssf": {"affine": True, "affine_kind": "ssf"},
    "layer_norm": {"affine": True, "affine_kind": "layer_norm"},
}
SWITCHES = ("lora", "serial_adapter", "parallel_adapter", "prefix", "sparse", "affine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """One task at the fidelity of its table.

    Args:
        task: Name of the task.
        train_fraction: Share of the official training file.
        train_examples: Examples per epoch.
        epochs: Passes over them.
        search_examples: Examples of the search split that runs are scored on.
        max_tokens: Texts are truncated to this many tokens.
        batch_size: Examples per step.
        is_balanced: Whether both splits are cut to equally many examples of each class.
    """

    task: str
    train_fraction: float = 1.0
    train_examples: int
    epochs: int
    search_examples: int
    max_tokens: int
    batch_size: int = 16
    is_balanced: bool = False


WORLDS = {
    "sst2": World(
        task="glue/sst2", train_fraction=0.02, train_examples=1347, epochs=1, search_examples=400, max_tokens=64
    ),
    # Three sentences in four are acceptable, and short trainings answer so throughout: Matthews' correlation is 0
    # for almost every configuration unless the classes are balanced.
    "cola": World(
        task="glue/cola", train_examples=1350, epochs=2, search_examples=400, max_tokens=32, is_balanced=True
    ),
    "rte": World(task="glue/rte", train_examples=500, epochs=1, search_examples=248, max_tokens=48),
}


def prepare_world(world: World, data_dir: Path) -> PreparedSearch:
    """The study of a table, with its splits cut to the table's size."""
    prepared = prepare(
        SearchSettings(
            task=world.task,
            budget=BUDGET,
            data_dir=data_dir,
            train_fraction=world.train_fraction,
            epochs=world.epochs,
            train_examples=world.train_examples,
            batch_size=world.batch_size,
            max_tokens=world.max_tokens,
            precision="bfloat16",
            study=f"table-{world.task.rpartition('/')[2]}",
        )
    )
    task = _cut(prepared.task, world)
    training = dataclasses.replace(prepared.training, evaluations_per_epoch=max(1, round(RUNGS / world.epochs)))
    spec = dataclasses.replace(
        prepared.spec,
        task={**prepared.spec.task, "content_hash": task.content_hash},
        training=training.to_dict(),
        fidelity=dataclasses.replace(prepared.spec.fidelity, train_examples=world.train_examples),
    )
    return dataclasses.replace(prepared, task=task, training=training, spec=spec)


def _cut(task: Task, world: World) -> Task:
    train, search = task.train, task.search
    if world.is_balanced:
        train, search = _balanced(train), _balanced(search)
    order = stratified_order(search.targets, np.random.default_rng(0))
    return dataclasses.replace(
        task, train=train.head(world.train_examples), search=_take(search, order[: world.search_examples])
    )


def _balanced(split: Split) -> Split:
    """Equally many examples of each class, alternating, so that every prefix is balanced too."""
    classes = [np.flatnonzero(split.targets == label) for label in np.unique(split.targets)]
    n = min(len(rows) for rows in classes)
    return _take(split, np.stack([rows[:n] for rows in classes], axis=1).ravel())


def _take(split: Split, rows: np.ndarray) -> Split:
    return Split(
        texts=tuple(split.texts[i] for i in rows),
        pairs=None if split.pairs is None else tuple(split.pairs[i] for i in rows),
        targets=split.targets[rows].copy(),
    )


def draw(space: BoundSpace) -> list[tuple[str, Point]]:
    """Random, family and autopeft configurations, mixed; always the same ones."""
    points = PointSource(space)
    rng = np.random.default_rng(np.random.SeedSequence([2026, 11]))
    kinds = [kind for kind, n in COUNTS.items() if kind != "neighbor" for _ in range(n)]
    rng.shuffle(kinds)
    found: dict[str, tuple[str, Point]] = {}
    families = _cycle(list(FAMILIES), rng)
    for kind in kinds:
        family = next(families) if kind == "family" else None
        while True:
            params = (
                space.draw(rng) if kind == "random" else {**_full_draw(space, rng), **_overrides(kind, family, rng)}
            )
            point = points.make(params)
            if point is not None and point.fingerprint not in found:
                break
        found[point.fingerprint] = kind, point
    return list(found.values())


def _full_draw(space: BoundSpace, rng: np.random.Generator) -> dict[str, OptionValue]:
    """A value for every parameter, also for those that most draws leave inactive."""
    values: dict[str, OptionValue] = {}
    while len(values) < len(space.parameters):
        values |= space.draw(rng)
    return values


def _overrides(kind: str, family: str | None, rng: np.random.Generator) -> dict[str, OptionValue]:
    """What a kind fixes of a uniform draw."""
    if kind == "family" and family is not None:
        return {**dict.fromkeys(SWITCHES, False), **FAMILIES[family]}
    if kind == "autopeft":
        on = [name for name in ("serial_adapter", "parallel_adapter", "prefix") if rng.random() < 0.5]
        return {
            **dict.fromkeys(SWITCHES, False),
            **dict.fromkeys(on or ["serial_adapter"], True),
            "layer_rule": "chosen",
        }
    return {}


def _cycle(names: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield from rng.permutation(names).tolist()


def neighbors(space: BoundSpace, trials: Sequence[Trial], known: Mapping[str, object], metric: str) -> list[Point]:
    """Configurations one exchange away from the front, each member giving equally many."""
    by_point: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.state is TrialState.COMPLETE and trial.value(metric) is not None:
            by_point.setdefault(trial.configuration.fingerprint, []).append(trial)
    groups = [group for group in by_point.values() if len(group) == len(SEEDS)]
    scores = np.array([np.mean([float(trial.value(metric) or 0.0) for trial in group]) for group in groups])
    costs = np.array([-np.log10(1 + group[0].draft.trainable_parameters) for group in groups])
    members = np.flatnonzero(non_dominated_mask(np.column_stack([scores, costs])))
    points = PointSource(space)
    rng = np.random.default_rng(np.random.SeedSequence([2026, 12]))
    found: dict[str, Point] = {}
    queues = []
    for i in sorted(members, key=lambda i: -scores[i]):
        params = groups[i][0].draft.params
        center = None if params is None else points.make(params)
        if center is not None:
            around = list(points.neighbours(center, rng, few=4))
            queues.append([around[j] for j in rng.permutation(len(around))])
    while len(found) < COUNTS["neighbor"] and any(queues):
        for queue in queues:
            if queue and (point := queue.pop()).fingerprint not in known:
                found.setdefault(point.fingerprint, point)
    return list(found.values())[: COUNTS["neighbor"]]


def enqueue(store: TrialStore, prepared: PreparedSearch, items: Sequence[tuple[str, Point]]) -> None:
    """Add a trial per configuration and seed, unless it is there."""
    known = {trial.draft.identity for trial in store.load_study(prepared.spec.name).trials}
    for kind, point in items:
        for seed in SEEDS:
            draft = TrialDraft(
                kind=TrialKind.SEARCH,
                configuration=point.configuration,
                trainable_parameters=point.trainable_parameters,
                fidelity=prepared.spec.fidelity,
                seed=seed,
                params=dict(point.params),
                label=kind,
            )
            if draft.identity not in known:
                try:
                    store.add_trial(prepared.spec.name, draft)
                except TrialConflictError:
                    continue  # another process of this table was faster


def run(world: World, data_dir: Path, url: str, cache_dir: Path) -> None:
    """Train whatever is missing."""
    prepared = prepare_world(world, data_dir)
    name, metric = prepared.spec.name, prepared.task.primary_metric
    store = open_store(url)
    store.ensure_study(prepared.spec)
    enqueue(store, prepared, draw(prepared.space))
    runner = load_runner(prepared, cache_dir=cache_dir)
    executor = LocalExecutor(store, runner, SilentProgress())
    try:
        while True:
            store.release_expired(name)
            while executor.advance(name, [TrialKind.SEARCH]):
                trials = store.load_study(name).trials
                n_done = sum(item.state.is_finished for item in trials)
                if n_done % 20 == 0:
                    print(f"{name}: {n_done} of {len(trials)} runs", flush=True)
            study = store.load_study(name)
            if not all(item.state.is_finished for item in study.trials):
                print(f"{name}: other processes hold the last runs; run this again for the neighbors", flush=True)
                return
            if any(item.draft.label == "neighbor" for item in study.trials):
                return
            known = {item.configuration.fingerprint: None for item in study.trials}
            around = neighbors(prepared.space, study.trials, known, metric)
            enqueue(store, prepared, [("neighbor", point) for point in around])
    except BaseException:
        executor.give_back(name)
        raise


def write(world: World, data_dir: Path, url: str, folder: Path) -> Path:
    """Write the finished runs, one row per configuration and seed."""
    prepared = prepare_world(world, data_dir)
    study = open_store(url).load_study(prepared.spec.name)
    metrics = list(prepared.task.metrics)
    rows = []
    for trial in study.trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.FAILED):
            continue
        measured = trial.measurement()
        rows.append(
            {
                "fingerprint": trial.configuration.fingerprint,
                "kind": trial.draft.label,
                "seed": trial.draft.seed,
                "params": json.dumps(dict(trial.draft.params or {}), sort_keys=True),
                "configuration": trial.configuration.describe(),
                "trainable_parameters": trial.draft.trainable_parameters,
                "failure": None if trial.failure is None else trial.failure.reason,
                "steps": [point.step for point in trial.curve],
                **{name: [point.metrics.get(name) for point in trial.curve] for name in metrics},
                "train_loss": [point.metrics.get("train_loss") for point in trial.curve],
                "curve_time_s": [point.wall_time_s for point in trial.curve],
                "wall_time_s": None if measured is None else measured.costs.get("wall_time_s"),
                "peak_memory_bytes": None if measured is None else measured.costs.get("peak_memory_bytes"),
            }
        )
    about = {
        "task": world.task,
        "metric": prepared.task.primary_metric,
        "budget": prepared.space.budget,
        "backbone": prepared.settings.backbone,
        "world": dataclasses.asdict(world),
        "seeds": list(SEEDS),
        "space": dict(prepared.spec.space),
    }
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"autopeft": json.dumps(about, default=str)})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{world.task.rpartition('/')[2]}.parquet"
    pq.write_table(table, path, compression="zstd", compression_level=19)
    return path


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "write"])
    parser.add_argument("--task", choices=list(WORLDS), required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="GLUE in its official layout")
    parser.add_argument("--db", default="sqlite:///tables.db")
    parser.add_argument("--cache-dir", type=Path, default=Path("table_cache"))
    parser.add_argument("--out", type=Path, default=TABLES)
    arguments = parser.parse_args()
    world = WORLDS[arguments.task]
    if arguments.action == "run":
        run(world, arguments.data_dir, arguments.db, arguments.cache_dir)
    else:
        path = write(world, arguments.data_dir, arguments.db, arguments.out)
        print(f"{path}: {pq.read_metadata(path).num_rows} rows, {path.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
