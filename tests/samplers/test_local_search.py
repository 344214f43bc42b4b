"""Oracle: the best of all feasible configurations, counted out."""

from collections.abc import Sequence

import numpy as np
import pytest

from autopeft.samplers._local_search import maximize
from autopeft.samplers._points import Point, PointSource
from tests.samplers.problem import Problem, default_space, small_space, tiny_space

TINY = tiny_space()


def cost(items: Sequence[Point]) -> np.ndarray:
    return np.array([float(item.trainable_parameters) for item in items])


def test_it_finds_the_best_of_a_space_that_can_be_counted() -> None:
    points = PointSource(TINY)
    everything = {item.fingerprint: item for item in points.count_out(np.random.default_rng(0))}
    taken: set[str] = set()
    for expected in sorted(cost(list(everything.values())), reverse=True):
        found = maximize(cost, points, incumbents=[], rng=np.random.default_rng(1), taken=taken)
        assert found.trainable_parameters == expected
        taken.add(found.fingerprint)
    assert maximize(cost, points, incumbents=[], rng=np.random.default_rng(1), taken=taken) is None


def test_climbing_beats_as_many_uniform_draws() -> None:
    """On a smooth quality, against the best of 1,000 draws; a search scores fewer points than that."""
    space = small_space()
    points = PointSource(space)
    wins = 0
    for seed in range(4):
        problem = Problem(space, seed=seed)

        def quality(items: Sequence[Point], problem: Problem = problem) -> np.ndarray:
            return np.array([problem.true_accuracy(item.configuration) for item in items])

        found = maximize(quality, points, incumbents=[], rng=np.random.default_rng(seed), taken=())
        best_draw = quality(points.draw(np.random.default_rng(seed + 10), 1000, ())).max()
        wins += quality([found])[0] >= best_draw
    assert wins >= 3


def test_neighbours_of_incumbents_are_looked_at() -> None:
    """A needle that only a neighbour of the incumbent reaches: scored 1 there, 0 elsewhere."""
    points = PointSource(default_space())
    rng = np.random.default_rng(5)
    incumbent = points.draw(rng, 1, ())[0]
    needles = {item.fingerprint for item in points.neighbours(incumbent, np.random.default_rng(6))}

    def score(items: Sequence[Point]) -> np.ndarray:
        modules = incumbent.configuration.placements
        near = [item.fingerprint in needles or item.configuration.placements == modules for item in items]
        return np.array(near, dtype=float)

    found = maximize(score, points, incumbents=[incumbent], rng=rng, taken={incumbent.fingerprint})
    assert score([found]) == 1


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_worthless_scores_still_give_a_point(bad: float) -> None:
    points = PointSource(TINY)
    found = maximize(
        lambda items: np.full(len(items), bad), points, incumbents=[], rng=np.random.default_rng(0), taken=()
    )
    assert isinstance(found, Point)
