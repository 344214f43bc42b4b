"""What earlier searches are worth: each table searched cold, and from searches of the other tables.

    python -m benchmarks.transfer run --seeds 10              # resumes where it was interrupted
    python -m benchmarks.transfer report --write docs/transfer_results.md

Three ways to search each table, 10 seeds each: ``cold``; ``warm``, from one finished search of every other table, as
``--warm-start auto`` would; ``reversed``, the same with every score of the earlier searches turned around, which is the
most misleading neighbor there can be. The earlier searches are cold ones of the same length under other seeds.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autopeft.objectives import Direction, Objective
from autopeft.samplers import EarlierStudy, EarlierTrial, Sampler, make_sampler
from benchmarks.replay.contestants import code_of
from benchmarks.replay.simulate import replay
from benchmarks.replay.statistics import Estimate, compare, first_reaching
from benchmarks.replay.world import World, read_world

Array = npt.NDArray[np.float64]

HERE = Path(__file__).parent
TABLES = HERE / "tables"
RESULTS = HERE / "results" / "transfer.jsonl"
ARMS = ("cold", "warm", "reversed")
#: Trials of an earlier search, and of the cold search whose end is to be reached.
N_TRIALS = 60
#: How much longer than a cold search an arm is followed.
_LONGER = 1.5
#: Distance between the seeds of a search and those of the earlier searches it learns from.
_OTHER_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Key:
    """One replay.

    Args:
        table: Name of the table.
        digests: Of all tables that have a part in it, sorted, joined.
        arm: One of `ARMS`.
        seed: Repetition.
        code: Identity of the samplers' code.
    """

    table: str
    digests: str
    arm: str
    seed: int
    code: str


def search(world: World, *, seed: int, n_trials: int, earlier: Sequence[EarlierStudy] = ()) -> tuple[int, ...]:
    """Rows of a table in the order of a search."""
    sampler: Sampler = make_sampler(
        "bayesian",
        space=world.space,
        objectives=world.objectives,
        seed=seed,
        fidelity=world.fidelity,
        candidates=[row.point.params for row in world.rows],
        earlier=earlier,
    )
    return replay(world, sampler, n_trials=min(n_trials, len(world)), seed=seed).order


def finished(world: World, order: Sequence[int], seed: int, *, is_reversed: bool = False) -> EarlierStudy:
    """A search as it is remembered.

    Args:
        world: The table.
        order: Its rows, as they were searched.
        seed: Of that search: tells which of the table's runs it saw.
        is_reversed: Turn every score around, so that the worst looks best.
    """
    table_seed = world.seeds[seed % len(world.seeds)]
    kept = [
        (world.rows[row].point, value) for row in order if (value := world.rows[row].runs[table_seed].value) is not None
    ]
    return EarlierStudy(
        name=f"{world.name}-{seed}",
        task=world.name,
        backbone="minilm",
        n_layers=world.space.shapes.n_layers,
        backbone_parameters=world.space.shapes.parameters,
        objectives=(Objective(name=world.metric, direction=Direction.MAXIMIZE),),
        trials=tuple(
            EarlierTrial(
                configuration=point.configuration,
                params=point.params,
                trainable_parameters=point.trainable_parameters,
                values={world.metric: -value if is_reversed else value},
            )
            for point, value in kept
        ),
    )


def key_of(worlds: Mapping[str, World], table: str, arm: str, seed: int) -> Key:
    """Identity of a replay: a cold one does not depend on the other tables."""
    parts = [worlds[table].digest] if arm == "cold" else sorted(item.digest for item in worlds.values())
    return Key(table=table, digests="-".join(parts), arm=arm, seed=seed, code=code_of("bayesian"))


def run(worlds: Mapping[str, World], *, n_seeds: int, n_trials: int, results: Path) -> None:
    """Do what is missing."""
    done = read(results)

    @functools.cache
    def earlier_search(name: str, seed: int) -> tuple[int, ...]:
        return search(worlds[name], seed=seed, n_trials=n_trials)

    for seed in range(n_seeds):
        for name, world in worlds.items():
            for arm in ARMS:
                key = key_of(worlds, name, arm, seed)
                if key in done or (arm != "cold" and len(worlds) < 2):
                    continue
                other = seed + _OTHER_SEEDS
                earlier = [
                    finished(item, earlier_search(item.name, other), other, is_reversed=arm == "reversed")
                    for item in worlds.values()
                    if item.name != name and arm != "cold"
                ]
                order = search(world, seed=seed, n_trials=round(_LONGER * n_trials), earlier=earlier)
                append(results, key, order)
                print(f"{name} {arm} seed {seed}: {world.hypervolumes(order)[-1]:.4f}", flush=True)


def append(path: Path, key: Key, order: Sequence[int]) -> None:
    """Add a line to the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({**vars_of(key), "order": list(order)}, separators=(",", ":")) + "\n")


def read(path: Path) -> dict[Key, tuple[int, ...]]:
    """All results; lines that were cut short are left out."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        order = tuple(record.pop("order"))
        found[Key(**record)] = order
    return found


def vars_of(key: Key) -> dict[str, str | int]:
    """The key as JSON."""
    return {name: getattr(key, name) for name in Key.__dataclass_fields__}


def curves(worlds: Mapping[str, World], results: Mapping[Key, Sequence[int]], table: str, arm: str) -> dict[int, Array]:
    """Hypervolume over trials by seed, of the replays that belong to these tables and this code."""
    found = {}
    for key, order in results.items():
        if key == key_of(worlds, table, arm, key.seed):
            found[key.seed] = worlds[table].hypervolumes(order)
    return found


def report(worlds: Mapping[str, World], results: Mapping[Key, Sequence[int]], *, n_trials: int) -> str:
    """The comparison in Markdown: hypervolume at some lengths, and trials to the cold search's end."""
    lines = [
        f"| table | search | seeds | after {n_trials // 6} | {n_trials // 3} | {n_trials // 2} | {n_trials} | "
        f"trials to the cold search's mean after {n_trials} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for table in worlds:
        found = {arm: curves(worlds, results, table, arm) for arm in ARMS}
        if not found["cold"]:
            continue
        target = float(np.mean([curve[n_trials - 1] for curve in found["cold"].values()]))
        for arm, by_seed in found.items():
            if by_seed:
                lines.append(_row(table, arm, by_seed, target, n_trials))
        for arm in ("warm", "reversed"):
            shared = sorted(found["cold"].keys() & found[arm].keys())
            if shared:
                lines.append(_paired(table, arm, [found[arm][s] for s in shared], [found["cold"][s] for s in shared]))
    return (
        "\n".join(line for line in lines if line.startswith("|"))
        + "\n\n"
        + "\n".join(line for line in lines if not line.startswith("|"))
    )


def _row(table: str, arm: str, by_seed: Mapping[int, Array], target: float, n_trials: int) -> str:
    stacked = np.stack([curve for _, curve in sorted(by_seed.items())])
    cells = []
    for n in (n_trials // 6, n_trials // 3, n_trials // 2, n_trials):
        found = Estimate.of(stacked[:, n - 1])
        cells.append(f"{found.mean:.4f} ± {found.half:.4f}")
    reached = first_reaching(stacked.mean(axis=0), target - 1e-12)
    words = f"more than {stacked.shape[1]}" if reached is None else str(reached)
    return f"| {table} | {arm} | {len(stacked)} | {' | '.join(cells)} | {words} |"


def _paired(table: str, arm: str, ours: Sequence[Array], cold: Sequence[Array]) -> str:
    """Mean over the first trials of the difference to the cold search, paired by seed."""
    n = min(map(len, [*ours, *cold]))
    found = compare([curve[:n].mean() for curve in ours], [curve[:n].mean() for curve in cold])
    return (
        f"- {table}, {arm} minus cold, mean over the first {n} trials: {found.difference.mean:+.4f} ± "
        f"{found.difference.half:.4f} (paired, p = {found.p_t:.2g}; {found.wins} wins, {found.losses} losses)."
    )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--tables", nargs="+", type=Path, default=None, help="files; default: all that there are")
    parser.add_argument("--seeds", type=int, default=10, help="repetitions")
    parser.add_argument("--trials", type=int, default=N_TRIALS, help="of the cold search whose end is to be reached")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, default=None, help="where the report goes; default: the screen")
    arguments = parser.parse_args()
    logging.getLogger("autopeft").setLevel(logging.ERROR)
    worlds = {world.name: world for world in map(read_world, arguments.tables or sorted(TABLES.glob("*.parquet")))}
    if not worlds:
        raise SystemExit(f"there is no table in {TABLES}; make one with benchmarks/table.py")
    if arguments.action == "run":
        run(worlds, n_seeds=arguments.seeds, n_trials=arguments.trials, results=arguments.results)
        return
    text = report(worlds, read(arguments.results), n_trials=arguments.trials)
    if arguments.write is None:
        print(text)
    else:
        arguments.write.write_text(text + "\n")


if __name__ == "__main__":
    main()
