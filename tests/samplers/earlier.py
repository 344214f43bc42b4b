"""Earlier studies of the synthetic problem: as it is, of a related task, or with all scores reversed."""

from __future__ import annotations

import numpy as np

from autopeft.configuration import BoundSpace
from autopeft.samplers import EarlierStudy
from autopeft.samplers._earlier import EarlierTrial
from tests.samplers.problem import ACCURACY, Problem


class Related(Problem):
    """A task of a family: half of what matters in it matters alike in all tasks of the family.

    Args:
        space: What is searched.
        family: Which family.
        task: Which of its tasks.
        shared: Correlation with what all of them share.
    """

    def __init__(self, space: BoundSpace, family: int, task: int, *, shared: float = 0.7) -> None:
        for name, value in (("space", space), ("seed", 1000 * task + family), ("noise", 0.006)):
            object.__setattr__(self, name, value)
        common, own = np.random.default_rng([family, 1]), np.random.default_rng([family, task, 2])

        def draw(n: int) -> np.ndarray:
            return shared * common.normal(size=n) + np.sqrt(1 - shared**2) * own.normal(size=n)

        keys = sorted((name, part) for name, kind in space.module_types.items() for part in kind.parts)
        strengths = np.exp(0.6 * draw(len(keys)))
        object.__setattr__(self, "efficiency", dict(zip(keys, strengths.tolist(), strict=True)))
        weights = np.linspace(0.4, 1.0, space.shapes.n_layers) * np.exp(0.5 * draw(space.shapes.n_layers))
        object.__setattr__(self, "importance", weights / weights.sum())


def searched(problem: Problem, name: str, points: list[dict], *, is_reversed: bool = False) -> EarlierStudy:
    """A study that measured some points of the problem's space."""
    space = problem.space
    trials = []
    for params in points:
        configuration = space.compile(params)
        value = problem.measure(configuration)[0]
        trials.append(
            EarlierTrial(
                configuration=configuration,
                params=params,
                trainable_parameters=space.parameter_count(configuration),
                values={"accuracy": 1 - value if is_reversed else value},
            )
        )
    return EarlierStudy(
        name=name,
        task=name,
        backbone="tiny",
        n_layers=space.shapes.n_layers,
        backbone_parameters=space.shapes.parameters,
        objectives=(ACCURACY,),
        trials=tuple(trials),
    )


def draw_points(space: BoundSpace, n: int, seed: int = 0) -> list[dict]:
    """Different random points."""
    rng = np.random.default_rng(seed)
    found: dict[str, dict] = {}
    while len(found) < n:
        params = dict(space.sample(rng))
        found.setdefault(space.compile(params).fingerprint, params)
    return list(found.values())
