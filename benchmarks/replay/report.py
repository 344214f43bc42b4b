"""What the replays showed, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.replay.simulate import Replay
from benchmarks.replay.statistics import Estimate, at_time, compare, first_reaching
from benchmarks.replay.world import World

Array = npt.NDArray[np.float64]
Found = Mapping[tuple[str, str, int, str], Mapping[int, Replay]]

OURS = "bayesian"
CHECKPOINTS = (10, 20, 40, 60, 100)
TESTED = (40, 100)
#: Simulated time at which searches are compared, in mean trial durations.
DURATIONS = (5, 10, 20, 40, 80)
N_RANDOM = 200
LEVEL = 0.01
LABELS = {
    "bayesian": "autopeft (bayesian)",
    "bayesian_snapped": "autopeft (bayesian), snapped",
    "random": "random",
    "tpe": "Optuna TPE",
    "tpe_design": "Optuna TPE, our initial points",
    "tpe_snapped": "Optuna TPE, snapped",
    "nsga2": "Optuna NSGA-II, population 10",
    "nsga2_50": "Optuna NSGA-II, population 50",
    "gp": "Optuna GPSampler",
    "gp_design": "Optuna GPSampler, our initial points",
    "gp_snapped": "Optuna GPSampler, snapped",
    "autopeft": "AutoPEFT's method (MAP)",
    "autopeft_tuned": "AutoPEFT's method (MAP), log cost, our codes and initial points",
}


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Replays of one table with one number of workers.

    Args:
        world: The table.
        workers: Trials at the same time.
        runs: By sampler and seed.
    """

    world: World
    workers: int
    runs: Mapping[str, Mapping[int, Replay]]

    def curves(self, sampler: str) -> dict[int, Array]:
        """Hypervolume after 1, 2, ... trials by seed."""
        runs = sorted(self.runs[sampler].items())
        return {seed: self.world.hypervolumes(run.order, run.stopped_at) for seed, run in runs}

    def at(self, sampler: str, n_trials: int) -> dict[int, float]:
        """Hypervolume after n trials, for the seeds that got so far or exhausted the table."""
        return {
            seed: float(curve[min(n_trials, len(curve)) - 1])
            for seed, curve in self.curves(sampler).items()
            if len(curve) >= min(n_trials, len(self.world))
        }

    def qualities(self, sampler: str, n_trials: int) -> dict[int, float]:
        """True quality, after n trials, of what looked best."""
        seeds = self.world.seeds
        found = {}
        for seed, run in sorted(self.runs[sampler].items()):
            if len(run.order) >= min(n_trials, len(self.world)):
                seen = seeds[seed % len(seeds)]
                found[seed] = float(self.world.chosen_quality(run.order[:n_trials], seen, run.stopped_at)[-1])
        return found

    def at_times(self, sampler: str, times: Sequence[float]) -> Array:
        """Hypervolume at points of simulated time (seeds x times); NaN after a search has ended."""
        rows = []
        for seed, curve in self.curves(sampler).items():
            finished = self.runs[sampler][seed].finished_s
            values = at_time(curve, finished, times)
            is_over = (np.asarray(times) > finished[-1]) & (len(curve) < len(self.world))
            rows.append(np.where(is_over, math.nan, values))
        return np.array(rows)


def contests(worlds: Sequence[World], found: Found, pruner: str = "none") -> list[Contest]:
    """Group replays, samplers in the order of `LABELS`."""
    grouped = []
    for world in worlds:
        for workers in sorted({key[2] for key in found if key[0] == world.name}):
            runs = {
                name: found[world.name, name, workers, pruner]
                for name in LABELS
                if (world.name, name, workers, pruner) in found
            }
            if runs:
                grouped.append(Contest(world=world, workers=workers, runs=runs))
    return grouped


def report(worlds: Sequence[World], found: Found) -> str:
    """The whole page."""
    grouped = contests(worlds, found)
    parts = [_HEAD.format(decades=worlds[0].decades if worlds else 0.0), _verdict(grouped)]
    for world in worlds:
        parts.append(_about(world))
        for contest in grouped:
            if contest.world is world:
                parts += _section(contest)
        parts.append(_pruning(world, found))
    parts.append(_costs(grouped))
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(contest: Contest) -> list[str]:
    name = f"{contest.workers} worker" + ("s" if contest.workers > 1 else "")
    parts = [
        f"### {contest.world.name}, {name}",
        "Share of the table's hypervolume after so many trials (mean, 95 % interval):",
        _against_trials(contest),
        _against_time(contest),
    ]
    if OURS in contest.runs:
        parts += [_tests(contest)]
    if contest.workers == 1:
        parts += [_reaching(contest), _choice(contest), _sensitivity(contest)]
    return parts


def _against_trials(contest: Contest) -> str:
    reached = [n for n in CHECKPOINTS if any(contest.at(name, n) for name in contest.runs)]
    rows = []
    for name in contest.runs:
        cells = [cell(list(contest.at(name, n).values())) for n in reached]
        rows.append([LABELS[name], *cells, str(len(contest.runs[name]))])
    return table(["sampler", *(str(n) for n in reached), "repetitions"], rows)


def _against_time(contest: Contest) -> str:
    world = contest.world
    unit = mean_duration(world)
    rows, kept = [], []
    values = {name: contest.at_times(name, [unit * item for item in DURATIONS]) for name in contest.runs}
    for j, item in enumerate(DURATIONS):
        if any(not np.isnan(found[:, j]).any() for found in values.values()):
            kept.append((j, item))
    for name, found in values.items():
        cells = ["" if np.isnan(found[:, j]).any() else cell(found[:, j]) for j, _ in kept]
        rows.append([LABELS[name], *cells])
    head = table(["sampler", *(f"{item}" for _, item in kept)], rows)
    return f"The same against simulated time, in mean trial durations of this table ({unit:.1f} s):\n\n{head}"


def _tests(contest: Contest) -> str:
    rows = []
    for name in contest.runs:
        if name == OURS:
            continue
        for n in TESTED:
            ours, rival = contest.at(OURS, n), contest.at(name, n)
            seeds = sorted(ours.keys() & rival.keys())
            if len(seeds) < 2:
                continue
            found = compare([ours[seed] for seed in seeds], [rival[seed] for seed in seeds])
            d = found.difference
            verdict = "above" if found.is_above(LEVEL) else "below" if found.is_below(LEVEL) else "no difference shown"
            rows.append(
                [
                    LABELS[name],
                    str(n),
                    f"{d.mean:+.4f} [{d.mean - d.half:+.4f}, {d.mean + d.half:+.4f}]",
                    p_value(found.p_t),
                    p_value(found.p_wilcoxon),
                    f"{found.wins}/{found.losses}",
                    verdict,
                ]
            )
    if not rows:
        return ""
    head = ["against", "trials", "ours minus theirs", "p (t)", "p (Wilcoxon)", "wins/losses", f"at p < {LEVEL}"]
    return "Paired by repetition:\n\n" + table(head, rows)


def _reaching(contest: Contest) -> str:
    """Trials to reach what random search reaches in 200."""
    if "random" not in contest.runs:
        return ""
    length = min(N_RANDOM, len(contest.world))
    long = [curve[length - 1] for curve in contest.curves("random").values() if len(curve) >= length]
    if not long:
        return ""
    target = float(np.mean(long))
    rows = []
    for name in contest.runs:
        curves = list(contest.curves(name).values())
        shortest = min(len(curve) for curve in curves)
        mean = first_reaching(np.mean([curve[:shortest] for curve in curves], axis=0), target)
        found = [first_reaching(curve, target) for curve in curves]
        got = [item for item in found if item is not None]
        median = np.median([math.inf if item is None else item for item in found])
        rows.append(
            [
                LABELS[name],
                f"not in {shortest}" if mean is None else str(mean),
                "more" if math.isinf(median) else f"{median:.0f}",
                f"{len(got)} of {len(found)}",
            ]
        )
    head = ["sampler", "the mean curve", "median over repetitions", "repetitions that got there"]
    return (
        f"Trials to reach {target:.4f}, the mean hypervolume of random search after {length} trials "
        f"({length / len(contest.world):.0%} of the table):\n\n{table(head, rows)}"
    )


def _choice(contest: Contest) -> str:
    reached = [n for n in CHECKPOINTS if any(contest.qualities(name, n) for name in contest.runs)]
    rows = [
        [LABELS[name], *(cell(list(contest.qualities(name, n).values())) for n in reached)] for name in contest.runs
    ]
    best = float(np.nanmax(contest.world.truth))
    return (
        f"Mean {contest.world.metric} over the table's seeds of the configuration that looked best within the budget "
        f"(the best of the table: {best:.4f}):\n\n" + table(["sampler", *(str(n) for n in reached)], rows)
    )


def _sensitivity(contest: Contest) -> str:
    """The main comparison under other definitions of the hypervolume."""
    world = contest.world
    variants = {
        "as above": world,
        "cost counted up to twice the budget": replace(world, margin=math.log10(2)),
        "cost counted down to 1.5 decades below the budget": replace(world, decades=1.5),
        "and both": replace(world, decades=1.5, margin=math.log10(2)),
    }
    rows = []
    for label, other in variants.items():
        there = replace(contest, world=other)
        cells = [
            f"{np.mean(list(there.at(name, 40).values())):.3f}" if there.at(name, 40) else "" for name in contest.runs
        ]
        rows.append([label, *cells])
    if not any(cell for row in rows for cell in row[1:]):
        return ""
    head = table(["hypervolume", *(LABELS[name] for name in contest.runs)], rows)
    return f"Mean after 40 trials if the hypervolume is counted otherwise:\n\n{head}"


def _pruning(world: World, found: Found) -> str:
    """Our sampler with and without pruners: time saved, hypervolume lost."""
    rows = []
    for table_name, sampler, workers, pruner in sorted(found, key=lambda key: (key[2], key[3] != "none", key[3])):
        plain = found.get((world.name, OURS, workers, "none"))
        if table_name != world.name or sampler != OURS or pruner == "none" or plain is None:
            continue
        with_pruner, without = (
            Contest(world=world, workers=workers, runs={OURS: runs})
            for runs in (found[world.name, OURS, workers, pruner], plain)
        )
        rows += [row for n in TESTED if (row := _pruned_row(with_pruner, without, pruner, n))]
    if not rows:
        return ""
    head = ["pruner", "workers", "trials", "stopped", "time", "hypervolume", "lost", "at the same time, gained"]
    return (
        f"### {world.name}, stopping trials early\n\nOur sampler with a pruner against the same without one, as many "
        "trials each; what was stopped does not count as found. Time is simulated, as a share of that without; the "
        "last column compares the two searches when the pruned one ends its trials:\n\n" + table(head, rows)
    )


def _pruned_row(pruned: Contest, plain: Contest, name: str, n: int) -> list[str]:
    there, here = pruned.at(OURS, n), plain.at(OURS, n)
    seeds = sorted(there.keys() & here.keys())
    if not seeds:
        return []
    stopped, times, gained = [], [], []
    curves, others = pruned.curves(OURS), plain.curves(OURS)
    for seed in seeds:
        run, other = pruned.runs[OURS][seed], plain.runs[OURS][seed]
        k = min(n, len(run.order))
        stopped.append(sum(position < k for position in run.stopped_at) / k)
        times.append(run.finished_s[k - 1] / other.finished_s[k - 1])
        at_end = at_time(others[seed], other.finished_s, [run.finished_s[k - 1]])[0]
        gained.append(float(curves[seed][k - 1]) - float(at_end))
    lost = [here[seed] - there[seed] for seed in seeds]
    values = [there[seed] for seed in seeds]
    cells = [f"{np.mean(stopped):.0%}", f"{np.mean(times):.0%}", cell(values), cell(lost), cell(gained)]
    return [name, str(pruned.workers), str(n), *cells]


def _verdict(grouped: Sequence[Contest]) -> str:
    """What can be said in one sentence per table and rival."""
    lines = []
    for contest in grouped:
        if contest.workers != 1 or OURS not in contest.runs:
            continue
        for n in TESTED:
            words: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
            for name in contest.runs:
                ours, rival = contest.at(OURS, n), contest.at(name, n)
                seeds = sorted(ours.keys() & rival.keys())
                if name == OURS or len(seeds) < 2:
                    continue
                found = compare([ours[seed] for seed in seeds], [rival[seed] for seed in seeds])
                kind = "above" if found.is_above(LEVEL) else "below" if found.is_below(LEVEL) else "not told apart from"
                words[kind].append(f"{LABELS[name]} ({found.difference.mean:+.3f})")
            told = "; ".join(f"{kind} {', '.join(names)}" for kind, names in words.items() if names)
            if told:
                lines.append(f"- {contest.world.name}, {n} trials: {told}.")
    return (
        "## In short\n\nOur default sampler, one worker, differences in mean hypervolume:\n\n" + "\n".join(lines)
        if lines
        else ""
    )


def _about(world: World) -> str:
    pairs = np.array([[row.runs[seed].value or math.nan for seed in world.seeds] for row in world.rows])
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    noise = math.sqrt(float(np.mean(pairs.var(axis=1, ddof=1)))) if pairs.shape[1] > 1 else math.nan
    upper = pairs[pairs.mean(axis=1) > np.median(pairs.mean(axis=1))]
    failed = sum(run.failure is not None for row in world.rows for run in row.runs.values())
    worst = int((world.truth <= world.worst + 1e-9).sum())
    return (
        f"## {world.name}\n\n{len(world)} configurations, {len(world.seeds)} seeds each ({failed} runs failed); "
        f"{world.metric} from {world.worst:.4f} ({worst} configurations) to {np.nanmax(world.truth):.4f}; standard "
        f"deviation between seeds {noise:.4f}; correlation between seeds {_between_seeds(pairs)}, in the upper half "
        f"{_between_seeds(upper)} (where it is low, part of the front is luck, which no search can foresee); budget "
        f"{world.space.budget:,} parameters; table {world.digest}."
    )


def _between_seeds(pairs: Array) -> str:
    """Correlation of the first two seeds' values (n x seeds), or that there is none."""
    if len(pairs) < 3 or pairs.shape[1] < 2 or (np.ptp(pairs[:, :2], axis=0) == 0).any():
        return "unknown"
    return f"{np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1]:.2f}"


def _costs(grouped: Sequence[Contest]) -> str:
    rows = []
    for contest in grouped:
        if contest.workers == 1:
            for name, runs in contest.runs.items():
                each = [run.ask_s / len(run.order) for run in runs.values() if run.order]
                rows.append([contest.world.name, LABELS[name], f"{np.mean(each):.3f}"])
    if not rows:
        return ""
    return "## Time of a suggestion\n\nSeconds on one thread of a machine that had other work to do:\n\n" + table(
        ["table", "sampler", "s per suggestion"], rows
    )


def mean_duration(world: World) -> float:
    """Seconds that a trial takes on average."""
    return float(np.mean([run.wall_time_s for row in world.rows for run in row.runs.values()]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def cell(values: Sequence[float] | Array) -> str:
    """Mean and half its 95 % interval; empty without values."""
    if len(values) == 0:
        return ""
    found = Estimate.of(values)
    return f"{found.mean:.3f}" if math.isnan(found.half) else f"{found.mean:.3f} ± {found.half:.3f}"


def p_value(value: float) -> str:
    """As it is printed."""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


_HEAD = """# How many trials a search needs

<!-- Written by `python -m benchmarks.search_efficiency report`; edit benchmarks/replay/report.py instead. -->

Every sampler searches the same tables of configurations that were really trained (`benchmarks/table.py`). The table is
the world: a sampler may only propose its configurations, each once. A trial shows what the table holds for one of its
seeds, the same one throughout a search; repetitions take turns over the seeds, and repetitions of different samplers
are paired. The simulated clock advances by the time that the training took; a free worker asks at once, knowing what
has ended and what is still running.

**Measure.** Hypervolume of the evaluated configurations' true values (metric: mean over the table's seeds; cost: log10
of trainable parameters) as a share of that of the whole table. Reference point: the worst mean of the table, which is
a constant answer, and the budget. Configurations of less than 10^-{decades:g} of the budget count as that: nothing is
won by shrinking them further. All rivals that are told a cost are told it with this floor.

**Ours** is the default sampler, its acquisition function maximised over all rows that are left. **Rivals:** random
rows; Optuna's multivariate TPE, whose ratio of densities is maximised over the same rows; Optuna's GPSampler with both
objectives, whose log expected hypervolume improvement is maximised over the same rows; Optuna's NSGA-II with population
10, the row nearest to each child (in encoded distance) standing for it. Each has its own Optuna study and is told what
was evaluated. Rows "snapped" search the whole space as they would without a table, and the nearest row stands for each
proposal. **AutoPEFT's method** (arXiv 2301.12132): Gaussian processes with sparse axis-aligned subspaces on both
objectives, rank-to-normal outputs, noisy expected hypervolume improvement with the released code's fixed reference
point, 20 random rows to begin with; its length scales are fitted by maximum a posteriori, not sampled by NUTS."""
