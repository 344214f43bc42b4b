"""Oracles: brute force over a space that can be counted, and configurations written out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from autopeft.configuration import KNOWN_COSTS, BoundSpace, load_search_space
from autopeft.modules import MODULES
from autopeft.objectives import Constraint
from autopeft.samplers._points import PointSource
from autopeft.samplers._rare import Violation, rare_points
from tests.configuration.examples import bert_shapes
from tests.samplers.contract import everything
from tests.samplers.problem import TINY_BUDGET, default_space, tiny_space

TINY = tiny_space()
#: The packaged space: LoRA of rank 1 on q and v of one layer of hidden size 384 has 2 * 2 * 384 = 1,536 parameters.
DEFAULT = BoundSpace(
    space=load_search_space("default", MODULES), shapes=bert_shapes(), module_types=MODULES, budget=227_132
)
CORNER = (Constraint.parse("export_class=lora"), Constraint.parse("trainable_parameters<=1550"))


def points_of(space: BoundSpace) -> list[dict]:
    """Every canonical point of a discrete space, feasible or not."""
    found = {}
    for values in itertools.product(*(item.values for item in space.parameters)):
        full = dict(zip((item.name for item in space.parameters), values, strict=True))
        params = {name: full[name] for name in space.active(full)}
        found[str(params)] = params
    return list(found.values())


def test_nothing_is_violated_exactly_where_a_point_is_feasible() -> None:
    for limits in ((), ("trainable_parameters<=2000",), ("trainable_parameters>=3000", "stored_bytes<=20000")):
        constraints = [Constraint.parse(item) for item in limits]
        violation, points = Violation(TINY, constraints), PointSource(TINY, constraints=constraints)
        found = [(violation.of(params) == 0, points.make(params) is not None) for params in points_of(TINY)]
        assert {left for left, _ in found} == {True, False}
        assert all(left == right for left, right in found)


def test_what_is_violated_is_told_bound_by_bound() -> None:
    """Rank 4 on q and v of both layers is 4 * 2 * 2 * 768 = 12,288 parameters, of which the budget is 9,000."""
    constraints = [Constraint.parse(item) for item in ("trainable_parameters>=100k", "stored_bytes<=-5")]
    params = {"family": "lora", "rank": 4, "layer_0": True, "layer_1": True}
    budget, lower, below = Violation(TINY, constraints).parts(params)
    assert budget == pytest.approx(math.log((12_288 + 1) / (TINY_BUDGET + 1)))
    assert lower == pytest.approx(math.log(100_001 / 12_289))
    assert below == pytest.approx(math.log(4 * 12_288 + 1))
    assert Violation(TINY, []).of({**params, "layer_0": False, "layer_1": False}) == math.inf


def test_every_feasible_point_of_a_small_space_is_met() -> None:
    met = [point.fingerprint for point in rare_points(PointSource(TINY), [], np.random.default_rng(0))]
    assert len(met) == len(set(met))
    assert set(met) == everything(TINY)


def test_a_corner_that_draws_do_not_meet_is_approached() -> None:
    points = PointSource(DEFAULT, constraints=CORNER)
    assert points.draw(np.random.default_rng(0), 50, ()) == []
    found = points.fresh(np.random.default_rng(0), 3, ())
    assert len({point.fingerprint for point in found}) == 3
    for point in found:
        assert point.trainable_parameters == 1536
        assert {item.module.type for item in point.configuration.placements} == {"lora"}
    taken = {found[0].fingerprint}
    assert found[0].fingerprint not in {item.fingerprint for item in points.fresh(np.random.default_rng(0), 3, taken)}


def test_a_large_space_without_a_feasible_point_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted to its end the default space would take years."""
    monkeypatch.setattr("autopeft.samplers._points._MAX_COUNTED", 200)
    monkeypatch.setattr("autopeft.samplers._points._MAX_MISSES", 50)
    assert KNOWN_COSTS["stored_bytes"](DEFAULT.smallest(), DEFAULT.shapes, MODULES) > 1
    points = PointSource(DEFAULT, constraints=[Constraint.parse("stored_bytes<=1")])
    assert points.fresh(np.random.default_rng(0), 1, ()) == []
    assert points.some(np.random.default_rng(0)) is None


def test_the_generator_alone_decides() -> None:
    points = PointSource(default_space(), constraints=[Constraint.parse("trainable_parameters<=3000")])
    first, again = (
        [point.fingerprint for point in itertools.islice(rare_points(points, (), np.random.default_rng(3)), 5)]
        for _ in range(2)
    )
    assert first == again
