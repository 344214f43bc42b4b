"""How long the default sampler takes for a suggestion, by the number of trials, on one core.

    python benchmarks/suggestion_time.py
    python benchmarks/suggestion_time.py --trials 100 500 --batch 1 8 --repeats 3

Trials are uniform draws of a search space with made-up scores: what takes the time is fitting, compiling and scoring,
and none of them depends on how the scores came about. Seconds are processor seconds of this process, so that a busy
machine spoils them less; the wall-clock time and the load are printed beside them.
"""

from __future__ import annotations

import argparse
import math
import os
import time

import numpy as np

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


def made_up(number: int, point: Point, rng: np.random.Generator) -> Trial:
    """A finished trial whose score saturates in the parameters and collapses at high rates."""
    rate = math.log10(point.configuration.learning_rate)
    quality = 0.9 - 0.3 * math.exp(-point.trainable_parameters / 2e4) - 0.1 * (rate + 2.5) ** 2 + 0.01 * rng.normal()
    measured = Measurement(
        split=SEARCH_SPLIT,
        fidelity=FIDELITY,
        seed=0,
        metrics={"accuracy": quality},
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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="default")
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 100, 500])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measured", type=int, choices=(1, 2), default=1, help="measured objectives beside the cost")
    arguments = parser.parse_args()
    shapes = describe_backbone("minilm").shapes
    space = BoundSpace(
        space=load_search_space(arguments.space, MODULES), shapes=shapes, module_types=MODULES, budget=454_264
    )
    rng = np.random.default_rng(0)
    points = PointSource(space).fresh(rng, max(arguments.trials) + arguments.repeats, ())
    trials = [made_up(i, point, rng) for i, point in enumerate(points)]
    objectives = (ACCURACY, COSTS["wall_time_s"], COSTS["trainable_parameters"])[:: 2 // arguments.measured]
    columns = Encoder(space).encode(points[:1]).shape[1]
    print(f"space {arguments.space}: {len(space.parameters)} parameters, {columns} columns; ", end="")
    print(
        f"objectives {', '.join(item.name for item in objectives)}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()}"
    )
    print("| trials | batch | processor seconds (median) | wall-clock seconds (median) |\n| --- | --- | --- | --- |")
    for n in arguments.trials:
        for batch in arguments.batch:
            used, passed = [], []
            for repeat in range(arguments.repeats + 1):
                sampler = make_sampler("bayesian", space=space, objectives=objectives, seed=repeat, fidelity=FIDELITY)
                sampler.ask(trials[:4], 1)  # what is made once per process
                began, wall = time.process_time(), time.perf_counter()
                sampler.ask(trials[:n], batch)
                used.append(time.process_time() - began)
                passed.append(time.perf_counter() - wall)
            # The first one pays for imports.
            print(f"| {n} | {batch} | {np.median(used[1:]):.2f} | {np.median(passed[1:]):.2f} |", flush=True)


if __name__ == "__main__":
    main()
