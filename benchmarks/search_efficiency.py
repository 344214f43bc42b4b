"""How many trials a search needs: every sampler replayed on tables of configurations that were really trained.

    python -m benchmarks.search_efficiency run                    # hours; resumes where it was interrupted
    python -m benchmarks.search_efficiency run --tables sst2 --samplers bayesian random --seeds 8 --trials 40
    python -m benchmarks.search_efficiency run --samplers bayesian --pruners pareto median mo_asha
    python -m benchmarks.search_efficiency report --write docs/search_efficiency.md

A table is the world: a sampler chooses among its configurations, and a trial shows what the table holds for one seed,
after as much simulated time as the training took. See `docs/search_efficiency.md` for what is compared and how.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from autopeft.pruners import PRUNERS
from benchmarks.replay.contestants import CONTESTANTS, MAIN, code_of, make_stop
from benchmarks.replay.report import report
from benchmarks.replay.results import Task, append, latest, missing, read
from benchmarks.replay.simulate import Replay, replay
from benchmarks.replay.world import World, read_world

HERE = Path(__file__).parent
TABLES = HERE / "tables"
RESULTS = HERE / "results" / "search_efficiency.jsonl"
N_SEEDS = 30
N_TRIALS = 100
#: Random search goes on for so long: how soon others get there is reported.
N_RANDOM = 200
WORKERS = (1, 4)


def tasks(
    worlds: Sequence[World],
    samplers: Sequence[str],
    *,
    n_seeds: int,
    n_trials: int,
    workers: Sequence[int],
    pruners: Sequence[str] = ("none",),
) -> Iterator[Task]:
    """What is to be done: every sampler gets through a seed before the next seed begins."""
    for world in worlds:
        for seed in range(n_seeds):
            for n_workers, name, pruner in itertools.product(workers, samplers, pruners):
                is_long = name == "random" and n_workers == 1 and pruner == "none"
                yield Task(
                    table=world.name,
                    digest=world.digest,
                    sampler=name,
                    code=code_of(name, pruner),
                    workers=n_workers,
                    seed=seed,
                    pruner=pruner,
                    trials=min(N_RANDOM if is_long else n_trials, len(world)),
                )


def run(paths: Sequence[Path], wanted: Sequence[Task], results: Path, n_processes: int) -> None:
    """Do what is missing, on one thread per process."""
    by_name = {path.stem: path for path in paths}
    todo = [(by_name[task.table], task) for task in missing(wanted, results)]
    print(f"{len(todo)} of {len(wanted)} replays to do", flush=True)
    # A process of its own computes; threads must be limited before torch is imported there.
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(n_processes) as pool:
        for i, (task, found) in enumerate(pool.imap(_do, todo), 1):
            append(results, task, found)
            print(
                f"{i}/{len(todo)} {task.table} {task.sampler} x{task.workers} {task.pruner} seed {task.seed}",
                flush=True,
            )


def _do(item: tuple[Path, Task]) -> tuple[Task, Replay]:
    logging.getLogger("autopeft").setLevel(logging.ERROR)  # fallbacks are counted among the sources
    path, task = item
    world = load(path)
    if world.digest != task.digest:
        raise ValueError(f"{path} changed while it was replayed; run again.")
    sampler = CONTESTANTS[task.sampler](world, task.seed)
    stop = make_stop(world, task.pruner)
    return task, replay(world, sampler, n_trials=task.trials, n_workers=task.workers, seed=task.seed, stop=stop)


@lru_cache(maxsize=8)
def load(path: Path) -> World:
    """A table, read once."""
    return read_world(path)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--tables", nargs="+", default=None, help="names or files; default: all that there are")
    parser.add_argument("--samplers", nargs="+", choices=list(CONTESTANTS), default=list(MAIN))
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="repetitions")
    parser.add_argument("--trials", type=int, default=N_TRIALS)
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--pruners", nargs="+", choices=list(PRUNERS), default=["none"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, default=None, help="where the report goes; default: the screen")
    arguments = parser.parse_args()
    paths = table_paths(arguments.tables)
    worlds = [load(path) for path in paths]
    if arguments.action == "run":
        wanted = tasks(
            worlds,
            arguments.samplers,
            n_seeds=arguments.seeds,
            n_trials=arguments.trials,
            workers=arguments.workers,
            pruners=arguments.pruners,
        )
        run(paths, list(wanted), arguments.results, arguments.processes)
        return
    found = latest(read(arguments.results), {world.name: world.digest for world in worlds})
    text = report(worlds, found)
    if arguments.write is None:
        print(text)
    else:
        arguments.write.write_text(text)


def table_paths(names: Sequence[str] | None) -> list[Path]:
    """Files of tables by name or path.

    Raises:
        SystemExit: If one is not there; the message says which.
    """
    found = (
        sorted(TABLES.glob("*.parquet"))
        if names is None
        else [Path(name) if name.endswith(".parquet") else TABLES / f"{name}.parquet" for name in names]
    )
    absent = [str(path) for path in found if not path.exists()]
    if absent or not found:
        raise SystemExit(f"no table {', '.join(absent) or 'in ' + str(TABLES)}; benchmarks/table.py makes them.")
    return found


if __name__ == "__main__":
    main()
