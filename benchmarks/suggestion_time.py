"""How long the default sampler takes for a suggestion, by objectives and the number of trials, on one core.

    python benchmarks/suggestion_time.py
    python benchmarks/suggestion_time.py --trials 100 500 --cases two --repeats 5
    python benchmarks/suggestion_time.py --write docs/suggestion_time.md

Trials are uniform draws of a search space with made-up scores: what takes the time is fitting, compiling and scoring,
and none of them depends on how the scores came about. Seconds are processor seconds of this process, so that a busy
machine spoils them less; the load is printed beside them.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from autopeft.backbones import describe_backbone
from autopeft.configuration import BoundSpace, load_search_space
from autopeft.modules import MODULES
from autopeft.objectives import COSTS, Direction, Objective
from autopeft.samplers import make_sampler
from autopeft.samplers._encoding import Encoder
from autopeft.samplers._points import Point, PointSource
from autopeft.study import SEARCH_SPLIT, Fidelity, Measurement, Trial, TrialDraft, TrialKind, TrialState

FIDELITY = Fidelity(train_examples=1000, epochs=1)
ACCURACY = Objective(name="accuracy", direction=Direction.MAXIMIZE)
MEMORIZATION = Objective(name="memorization", direction=Direction.MINIMIZE)
PARAMETERS, BYTES, FLOPS, SECONDS = (
    COSTS[name] for name in ("trainable_parameters", "stored_bytes", "inference_flops_per_token", "wall_time_s")
)
#: Per case what it is, and its objectives.
CASES = {
    "one": ("1 measured, 1 exact", (ACCURACY, PARAMETERS)),
    "costs": ("1 measured, 2 exact", (ACCURACY, PARAMETERS, BYTES)),
    "two": ("2 measured, 1 exact", (ACCURACY, MEMORIZATION, PARAMETERS)),
    "two_costs": ("2 measured, 2 exact", (ACCURACY, MEMORIZATION, PARAMETERS, FLOPS)),
    "three": ("3 measured, 1 exact", (ACCURACY, MEMORIZATION, SECONDS, PARAMETERS)),
}
#: Suggestions asked for at once, and after how many trials.
_BATCH, _BATCH_TRIALS = 8, 100


def made_up(number: int, point: Point, rng: np.random.Generator) -> Trial:
    """A finished trial: scores saturate in the parameters and collapse at high rates, what is memorized grows."""
    rate = math.log10(point.configuration.learning_rate)
    fitted = 1 - math.exp(-point.trainable_parameters / 2e4)
    measured = Measurement(
        split=SEARCH_SPLIT,
        fidelity=FIDELITY,
        seed=0,
        metrics={
            "accuracy": 0.6 + 0.3 * fitted - 0.1 * (rate + 2.5) ** 2 + 0.01 * rng.normal(),
            "memorization": 0.2 + 0.3 * fitted**2 + 0.03 * rate + 0.01 * rng.normal(),
        },
        costs={"wall_time_s": 5 + len(point.configuration.placements) + rng.random()},
    )
    draft = TrialDraft(
        kind=TrialKind.SEARCH,
        configuration=point.configuration,
        trainable_parameters=point.trainable_parameters,
        fidelity=FIDELITY,
        seed=0,
        params=point.params,
    )
    return Trial(number=number, draft=draft, state=TrialState.COMPLETE, measurements=(measured,))


def seconds(
    space: BoundSpace, objectives: tuple[Objective, ...], trials: Sequence[Trial], *, batch: int, repeats: int
) -> list[float]:
    """Processor seconds of asking for `batch` suggestions after `trials`, once per repeat."""
    used = []
    for repeat in range(repeats + 1):
        sampler = make_sampler("bayesian", space=space, objectives=objectives, seed=repeat, fidelity=FIDELITY)
        sampler.ask(trials[:4], 1)  # what is made once per process
        began = time.process_time()
        found = sampler.ask(trials, batch)
        used.append(time.process_time() - began)
        if any(item.notes["source"] != "model" for item in found):
            raise RuntimeError(f"not every suggestion after {len(trials)} trials came from the model.")
    return used[1:]  # the first one pays for imports


def rows(
    space: BoundSpace, trials: Sequence[Trial], *, cases: Sequence[str], sizes: Sequence[int], repeats: int
) -> Iterator[str]:
    """A Markdown table, row by row: medians, and the longest in brackets."""

    def cell(case: str, n: int, batch: int) -> str:
        used = seconds(space, CASES[case][1], trials[:n], batch=batch, repeats=repeats)
        return f"{np.median(used):.2f} ({max(used):.2f})"

    yield (
        "| objectives | "
        + " | ".join([*(f"{n} trials" for n in sizes), f"{_BATCH} at once, {_BATCH_TRIALS} trials"])
        + " |"
    )
    yield "|---|" + "---:|" * (len(sizes) + 1)
    for case in cases:
        cells = [*(cell(case, n, 1) for n in sizes), cell(case, _BATCH_TRIALS, _BATCH)]
        yield f"| {CASES[case][0]}: {', '.join(item.name for item in CASES[case][1])} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print a table, and write a page of it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="default")
    parser.add_argument("--trials", type=int, nargs="+", default=[40, 100, 500])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shapes = describe_backbone("minilm").shapes
    space = BoundSpace(
        space=load_search_space(arguments.space, MODULES), shapes=shapes, module_types=MODULES, budget=454_264
    )
    rng = np.random.default_rng(0)
    points = PointSource(space).fresh(rng, max(*arguments.trials, _BATCH_TRIALS), ())
    trials = [made_up(i, point, rng) for i, point in enumerate(points)]
    columns = Encoder(space).encode(points[:1]).shape[1]
    about = (
        f"Processor seconds on one core for a suggestion of the default sampler in the search space "
        f"`{arguments.space}` ({len(space.parameters)} parameters, {columns} columns of the surrogate), and for "
        f"{_BATCH} suggestions asked for at once: median of {arguments.repeats}, the longest in brackets; load average "
        f"at the start {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. Costs that follow from the configuration "
        "are exact and cost no model; the first row's improvement has a closed form, the others' is averaged over up "
        "to 64 drawn fronts."
    )
    lines = []
    print(about, end="\n\n")
    for line in rows(space, trials, cases=arguments.cases, sizes=arguments.trials, repeats=arguments.repeats):
        print(line, flush=True)
        lines.append(line)
    if arguments.write is not None:
        title = "# Time of a suggestion\n\n<!-- Written by `python benchmarks/suggestion_time.py --write`. -->\n\n"
        arguments.write.write_text(title + about + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
