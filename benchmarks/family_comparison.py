"""Is it better to search all module families at once, or one alone, given the same number of trials?

    python -m benchmarks.family_comparison run
    python -m benchmarks.family_comparison report --write docs/family_comparison.md

On every table, our sampler searches the whole table, and the same sampler searches the configurations of one family
alone, with the same number of trials.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.replay.contestants import CONTESTANTS, code_of
from benchmarks.replay.report import LEVEL, cell, p_value, table
from benchmarks.replay.results import Task, append, latest, missing, read
from benchmarks.replay.simulate import Replay, replay
from benchmarks.replay.statistics import Comparison, compare
from benchmarks.replay.world import Row, World
from benchmarks.search_efficiency import HERE, N_SEEDS, load, table_paths

FAMILIES = (
    "lora",
    "moe_lora",
    "serial_adapter",
    "parallel_adapter",
    "prefix",
    "sparse",
    "ia3",
    "bitfit",
    "ssf",
    "layer_norm",
)
SAMPLER = "bayesian"
RESULTS = HERE / "results" / "family_comparison.jsonl"
#: Trials at which all families are compared, beside the number of each family's configurations.
N_TRIALS = 13
#: Families with fewer configurations than this are left out: there is nothing to search.
MIN_ROWS = 4


def family(row: Row) -> str | None:
    """The only module type of a configuration; None if it has several."""
    types = set(row.point.configuration.module_types)
    return next(iter(types)) if len(types) == 1 else None


def single(world: World, name: str) -> World:
    """The configurations of one family."""
    return world.restricted(lambda row: family(row) == name)


def searched(world: World) -> dict[str, World]:
    """Every family of a table that has enough configurations."""
    counts = {name: sum(family(row) == name for row in world.rows) for name in FAMILIES}
    return {name: single(world, name) for name, n in counts.items() if n >= MIN_ROWS}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One family against all.

    Args:
        name: Of the family.
        n_trials: Given to both.
        together: Hypervolume of the combined search by seed, as a share of the whole table's.
        alone: Of the search of the family.
        quality_together: True quality of what looked best in the combined search, by seed.
        quality_alone: In the search of the family.
    """

    name: str
    n_trials: int
    together: Sequence[float]
    alone: Sequence[float]
    quality_together: Sequence[float]
    quality_alone: Sequence[float]

    @property
    def hypervolume(self) -> Comparison:
        return compare(self.together, self.alone)

    @property
    def quality(self) -> Comparison:
        return compare(self.quality_together, self.quality_alone)


def run(worlds: Sequence[World], results: Path, n_seeds: int) -> None:
    """Do what is missing."""
    wanted = {}
    for world in worlds:
        parts = searched(world)
        longest = max((len(part) for part in parts.values()), default=0)
        for seed in range(n_seeds):
            wanted[_task(world, world.name, seed, longest)] = world
            for name, part in parts.items():
                wanted[_task(part, f"{world.name}/{name}", seed, len(part))] = part
    logging.getLogger("autopeft").setLevel(logging.ERROR)  # fallbacks are counted among the sources
    todo = missing(wanted, results)
    for i, task in enumerate(todo, 1):
        world = wanted[task]
        append(
            results, task, replay(world, CONTESTANTS[SAMPLER](world, task.seed), n_trials=task.trials, seed=task.seed)
        )
        if i % 20 == 0 or i == len(todo):
            print(f"{i} of {len(todo)}", flush=True)


def _task(world: World, name: str, seed: int, n_trials: int) -> Task:
    return Task(
        table=name,
        digest=world.digest,
        sampler=SAMPLER,
        code=code_of(SAMPLER),
        workers=1,
        seed=seed,
        pruner="none",
        trials=n_trials,
    )


def outcomes(world: World, runs: Mapping[str, Mapping[int, Replay]]) -> list[Outcome]:
    """Compare, seed by seed: after `N_TRIALS`, and after as many trials as a family has configurations.

    Args:
        world: The whole table.
        runs: Replays by the name of the table searched ("sst2", "sst2/lora", ...) and seed.
    """
    found = []
    whole = runs.get(world.name, {})
    for name, part in searched(world).items():
        alone = runs.get(f"{world.name}/{name}", {})
        seeds = [
            seed
            for seed in sorted(whole.keys() & alone.keys())
            if len(whole[seed].order) >= len(part) == len(alone[seed].order)
        ]
        if not seeds:
            continue
        back = [world.index[row.point.fingerprint] for row in part.rows]
        orders = {seed: [back[row] for row in alone[seed].order] for seed in seeds}
        for n in sorted({min(N_TRIALS, len(part)), len(part)}):
            found.append(
                Outcome(
                    name=name,
                    n_trials=n,
                    together=[float(world.hypervolumes(whole[seed].order[:n])[-1]) for seed in seeds],
                    alone=[float(world.hypervolumes(orders[seed][:n])[-1]) for seed in seeds],
                    quality_together=[_quality(world, whole[seed].order[:n], seed) for seed in seeds],
                    quality_alone=[_quality(world, orders[seed][:n], seed) for seed in seeds],
                )
            )
    return found


def _quality(world: World, order: Sequence[int], seed: int) -> float:
    return float(world.chosen_quality(order, world.seeds[seed % len(world.seeds)])[-1])


def report(worlds: Sequence[World], runs: Mapping[str, Mapping[int, Replay]]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for world in worlds:
        found = outcomes(world, runs)
        if found:
            parts += [f"## {world.name}", *_section(world, found)]
    return "\n\n".join(parts) + "\n"


def _section(world: World, found: Sequence[Outcome]) -> list[str]:
    rows, worse = [], []
    for item in found:
        rows.append(
            [
                item.name,
                str(item.n_trials),
                cell(item.together),
                cell(item.alone),
                _difference(item.hypervolume),
                cell(item.quality_together),
                cell(item.quality_alone),
                _difference(item.quality),
            ]
        )
        for what, comparison in (("hypervolume", item.hypervolume), (world.metric, item.quality)):
            if comparison.is_below(LEVEL):
                worse.append((item, what, comparison))
    head = ["family alone", "trials", "hypervolume, all", "alone", "all minus alone"]
    head += [f"{world.metric}, all", "alone", "all minus alone"]
    n_seeds = len(found[0].together)
    lines = [f"{n_seeds} repetitions; {len(world)} configurations in all.", table(head, rows)]
    if worse:
        lines.append("Where the combined search is worse:")
        lines.append("\n".join(_why(world, item, what, comparison) for item, what, comparison in worse))
    else:
        lines.append("Nowhere is the combined search shown to be worse.")
    return lines


def _why(world: World, item: Outcome, what: str, comparison: Comparison) -> str:
    """Facts that explain why one family alone did better."""
    rows = [i for i, row in enumerate(world.rows) if family(row) == item.name]
    inside, everywhere = np.nanmean(world.truth[rows]), np.nanmean(world.truth)
    front = world.hypervolumes(rows)[-1]
    others = np.delete(np.arange(len(world)), rows)
    rank = float(np.mean(world.truth[others] < np.nanmax(world.truth[rows])))
    return (
        f"- {item.name}, {what} ({_difference(comparison)}): its {len(rows)} configurations average {inside:.3f}, "
        f"the whole table {everywhere:.3f}; together they hold {front:.1%} of the table's hypervolume, and the best of "
        f"them is above {rank:.0%} of the others. In {item.n_trials} trials the search of the family sees "
        f"{item.n_trials / len(rows):.0%} of it, the combined search {item.n_trials / len(world):.0%} of its table."
    )


def _difference(found: Comparison) -> str:
    d = found.difference
    mark = " (above)" if found.is_above(LEVEL) else " (below)" if found.is_below(LEVEL) else ""
    return f"{d.mean:+.3f} [{d.mean - d.half:+.3f}, {d.mean + d.half:+.3f}], p {p_value(found.p_t)}{mark}"


_HEAD = """# All module families at once, or one alone?

<!-- Written by `python -m benchmarks.family_comparison report`; edit benchmarks/family_comparison.py instead. -->

Our default sampler searches a table of trained configurations (see [search_efficiency.md](search_efficiency.md) for the
tables, the hypervolume and its reference point) twice with the same number of trials: all of it, and the configurations
of one family alone. After as many trials as a family has configurations, the search of the family has seen all there is
of it: that is the best that any search of that family could reach on this table, with no variation left but that of the
seed. Hypervolumes are shares of the whole table's. Quality is the mean over the table's
seeds of what looked best at the seed that the search saw. Differences are paired by repetition, with 95 % intervals;
"above" and "below" are said where the paired t-test and Wilcoxon's test both have p < 0.01."""


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--tables", nargs="+", default=None, help="names or files; default: all that there are")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="repetitions")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, default=None, help="where the report goes; default: the screen")
    arguments = parser.parse_args()
    worlds = [load(path) for path in table_paths(arguments.tables)]
    if arguments.action == "run":
        run(worlds, arguments.results, arguments.seeds)
        return
    digests = {world.name: world.digest for world in worlds}
    for world in worlds:
        digests |= {f"{world.name}/{name}": part.digest for name, part in searched(world).items()}
    found = latest(read(arguments.results), digests)
    text = report(worlds, {key[0]: runs for key, runs in found.items()})
    if arguments.write is None:
        print(text)
    else:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
