"""Oracle for neighbourhoods and for counting out: brute force over all value tuples."""

import itertools

import numpy as np
import pytest

from autopeft.samplers._points import PointSource
from tests.samplers.contract import everything
from tests.samplers.problem import default_space, small_space, tiny_space

TINY = tiny_space()


@pytest.fixture
def tiny() -> PointSource:
    return PointSource(TINY)


def test_a_point_knows_its_configuration_and_cost(tiny: PointSource) -> None:
    point = tiny.make({"family": "lora", "rank": 2, "layer_0": False, "layer_1": True})
    assert point.configuration == TINY.compile(point.params)
    assert point.trainable_parameters == 2 * 2 * (384 + 384)
    assert point.fingerprint == point.configuration.fingerprint


def test_inactive_params_are_dropped(tiny: PointSource) -> None:
    params = {"family": "bias", "rank": 2, "bottleneck": 3, "layer_0": False, "layer_1": True}
    assert tiny.make(params).params == {"family": "bias", "layer_0": False, "layer_1": True}


def test_infeasible_points_are_none(tiny: PointSource) -> None:
    assert tiny.make({"family": "lora", "rank": 4, "layer_0": True, "layer_1": True}) is None  # above the budget
    assert tiny.make({"family": "lora", "rank": 1, "layer_0": False, "layer_1": False}) is None  # tunes nothing


def test_counting_out_finds_everything(tiny: PointSource) -> None:
    found = [point.fingerprint for point in tiny.count_out(np.random.default_rng(0))]
    assert set(found) == everything(TINY)


def test_neighbours_are_all_one_exchange_neighbours(tiny: PointSource) -> None:
    """With exchanged parents, children that become active may take any value; there is exactly one of each family."""
    start = tiny.make({"family": "lora", "rank": 2, "layer_0": True, "layer_1": False})
    found = [point.params for point in tiny.neighbours(start, np.random.default_rng(0))]
    same_family = [params for params in found if params["family"] == "lora"]
    expected = [
        {**start.params, "rank": 1},
        {**start.params, "rank": 3},
        {**start.params, "rank": 4},
        {**start.params, "layer_1": True},
    ]
    assert sorted(map(str, same_family)) == sorted(map(str, expected))
    others = [params for params in found if params["family"] != "lora"]
    assert sorted(params["family"] for params in others) == ["adapter", "bias"]
    assert all(params["layer_0"] and not params["layer_1"] for params in others)


def test_neighbours_differ_from_their_origin_and_each_other() -> None:
    points = PointSource(default_space())
    rng = np.random.default_rng(1)
    for start in points.draw(rng, 10, ()):
        around = [point.fingerprint for point in points.neighbours(start, rng)]
        assert start.fingerprint not in around
        assert len(set(around)) == len(around) > 10


def test_parameters_can_be_held_fixed(tiny: PointSource) -> None:
    start = tiny.make({"family": "lora", "rank": 2, "layer_0": True, "layer_1": False})
    around = tiny.neighbours(start, np.random.default_rng(0), without=("family", "layer_0", "layer_1"))
    assert [point.params["rank"] for point in around] == [1, 3, 4]


def test_draws_avoid_what_is_taken(tiny: PointSource) -> None:
    rng = np.random.default_rng(0)
    taken = {point.fingerprint for point in tiny.draw(rng, 10, ())}
    assert len(taken) == 10
    more = {point.fingerprint for point in tiny.draw(rng, 10, taken)}
    assert len(more) == 10
    assert not taken & more


def test_fresh_points_come_from_counting_where_drawing_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but one configuration taken, and a generator of points that never draws that one."""
    points = PointSource(TINY)
    *taken, last = sorted(everything(TINY))
    other = next(point for point in points.count_out(np.random.default_rng(0)) if point.fingerprint != last)
    monkeypatch.setattr(type(TINY), "draw", lambda self, rng: dict(other.params))
    found = points.fresh(np.random.default_rng(0), 3, set(taken))
    assert [point.fingerprint for point in found] == [last]


def test_forgetting_the_cache_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    space = small_space()
    kept = PointSource(space).draw(np.random.default_rng(3), 50, ())
    monkeypatch.setattr("autopeft.samplers._points._MAX_CACHED", 2)
    forgotten = PointSource(space).draw(np.random.default_rng(3), 50, ())
    assert kept == forgotten


def test_completing_fills_in_children_and_their_children(tiny: PointSource) -> None:
    rng = np.random.default_rng(0)
    seen = {str(tiny.complete({"family": "adapter"}, rng)) for _ in range(200)}
    combinations = itertools.product(range(1, 5), (False, True), (False, True))
    assert seen == {
        str({"family": "adapter", "bottleneck": size, "layer_0": a, "layer_1": b}) for size, a, b in combinations
    }
