"""Tiny tables made up from a synthetic problem."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from autopeft.samplers._points import PointSource
from benchmarks.replay.world import World, make_world
from tests.samplers.problem import FIDELITY, Problem, small_space

SPACE = small_space()
ABOUT = {"metric": "accuracy", "seeds": [0, 1], "task": "made/up"}


def records(n: int, *, seed: int = 0, noise: float = 0.006) -> list[dict[str, Any]]:
    """What `benchmarks/table.py` writes: n configurations under two seeds, three rungs each."""
    points = PointSource(SPACE).fresh(np.random.default_rng(seed), n, ())
    problem = Problem(SPACE, seed=seed)
    rng = np.random.default_rng([seed, 1])
    found = []
    for point in points:
        true = problem.true_accuracy(point.configuration)
        for run in ABOUT["seeds"]:
            value = float(true + noise * rng.normal())
            seconds = 5.0 + 0.5 * len(point.configuration.placements)
            found.append(
                {
                    "fingerprint": point.fingerprint,
                    "kind": "random",
                    "seed": run,
                    "params": json.dumps(dict(point.params)),
                    "configuration": point.configuration.describe(),
                    "trainable_parameters": point.trainable_parameters,
                    "failure": None,
                    "steps": [4, 8, 12],
                    "accuracy": [value - 0.04, value - 0.01, value],
                    "curve_time_s": [seconds / 3, seconds * 2 / 3, seconds],
                    "wall_time_s": seconds,
                    "peak_memory_bytes": 1e9,
                }
            )
    return found


def world(n: int, *, seed: int = 0, noise: float = 0.006) -> World:
    return make_world("made", records(n, seed=seed, noise=noise), ABOUT, SPACE, FIDELITY)
