import math

import numpy as np
import pytest

from autopeft.configuration import BoundSpace, load_search_space
from autopeft.samplers._design import Design
from autopeft.samplers._encoding import tuned_layers
from autopeft.samplers._points import Point, PointSource
from tests.configuration.examples import TYPES, bert_shapes
from tests.samplers.problem import default_space, small_space, tiny_space

SPACE = default_space()


def design_points(space: BoundSpace, n: int, *, seed: int = 0) -> list[Point]:
    points = PointSource(space)
    design = Design(points, seed=seed)
    found: list[Point] = []
    for index in range(n):
        taken = {point.fingerprint for point in found}
        found.append(design.propose(index, np.random.default_rng([seed, index]), taken))
    return found


def unevenness(points: list[Point], space: BoundSpace) -> float:
    """Largest Kolmogorov distance from an even spread of log cost, tuned layers and log rate over what is reached."""
    everything = PointSource(space).draw(np.random.default_rng(99), 400, ())
    raw, reach = (np.array([_coordinates(item) for item in group]) for group in (points, everything))
    low, high = reach.min(axis=0), reach.max(axis=0)
    unit = np.sort((raw - low) / (high - low), axis=0)
    ranks = (np.arange(len(points)) + 0.5) / len(points)
    return float(np.abs(unit - ranks[:, None]).max())


def _coordinates(point: Point) -> tuple[float, float, float]:
    n_layers = len(tuned_layers(point.configuration))
    return math.log(point.trainable_parameters), n_layers, math.log(point.configuration.learning_rate)


def test_it_begins_with_what_experts_would_try() -> None:
    small, large, parallel, medium = design_points(SPACE, 4)
    assert small.configuration.describe() == "lora 1 on q,v of 0-5, lr 0.005"
    assert set(large.configuration.module_types) == {"lora"}
    assert 0.3 * SPACE.budget < large.trainable_parameters <= 0.5 * SPACE.budget
    assert len(large.configuration.placements) == 6 * 6
    assert set(parallel.configuration.module_types) == {"parallel_adapter"}
    assert parallel.trainable_parameters <= 0.25 * SPACE.budget
    assert set(medium.configuration.module_types) == {"lora"}
    assert 0.12 * SPACE.budget < medium.trainable_parameters <= 0.25 * SPACE.budget


def test_what_was_tried_already_is_left_out() -> None:
    first = design_points(SPACE, 1)[0]
    design = Design(PointSource(SPACE), seed=0)
    other = design.propose(0, np.random.default_rng(0), {first.fingerprint})
    assert other.fingerprint != first.fingerprint


def test_it_covers_cost_depth_and_rate_more_evenly_than_uniform_draws() -> None:
    """Means over seeds; the layers' three values keep the distance from reaching zero."""
    space = small_space()
    seeds = range(4)
    drawn = [PointSource(space).draw(np.random.default_rng(seed), 12, ()) for seed in seeds]
    ours = np.mean([unevenness(design_points(space, 16, seed=seed)[4:], space) for seed in seeds])
    theirs = np.mean([unevenness(points, space) for points in drawn])
    assert ours < 0.9 * theirs


@pytest.mark.parametrize(
    ("space", "n_strong"),
    [
        (tiny_space(), 0),
        (
            BoundSpace(
                space=load_search_space("autopeft", TYPES), shapes=bert_shapes(), module_types=TYPES, budget=400_000
            ),
            1,
        ),
    ],
    ids=["no learning rate, few sizes", "sizes are powers of two"],
)
def test_spaces_that_cannot_say_them_begin_with_the_cover(space: BoundSpace, n_strong: int) -> None:
    points = design_points(space, 6)
    assert len({point.fingerprint for point in points}) == 6
    assert len(Design(PointSource(space), seed=0)._strong()) <= max(n_strong, 2)


def test_an_exhausted_space_has_no_next_point() -> None:
    space = tiny_space()
    taken = {point.fingerprint for point in PointSource(space).count_out(np.random.default_rng(0))}
    assert Design(PointSource(space), seed=0).propose(7, np.random.default_rng(0), taken) is None
