import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration import Parameter
from autopeft.samplers._values import FEW, exchanges, from_unit, grid, random_value, to_unit

RATE = Parameter(name="rate", type="float", low=5e-4, high=2e-2, log=True)
SHARE = Parameter(name="share", type="float", low=0.05, high=1.0)
RANK = Parameter(name="rank", type="int", low=1, high=64, log=True)
HALVINGS = Parameter(name="halvings", type="int", low=0, high=5)
FLAG = Parameter(name="flag", type="bool")
PARTS = Parameter(name="parts", type="categorical", choices=("qv", "all", "ffn"))
MANY = Parameter(name="many", type="categorical", choices=tuple(f"c{i}" for i in range(20)))
ALL = [RATE, SHARE, RANK, HALVINGS, FLAG, PARTS, MANY]
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("parameter", [RATE, SHARE])
@given(unit=st.floats(0, 1))
def test_floats_survive_the_round_trip(parameter: Parameter, unit: float) -> None:
    value = from_unit(parameter, unit)
    assert parameter.contains(value)
    assert to_unit(parameter, value) == pytest.approx(unit, abs=1e-9)


@pytest.mark.parametrize("parameter", [RANK, HALVINGS])
def test_integers_survive_the_round_trip(parameter: Parameter) -> None:
    for value in parameter.values:
        assert from_unit(parameter, to_unit(parameter, value)) == value


def test_logarithmic_scales_have_their_middle_at_the_geometric_mean() -> None:
    assert from_unit(RANK, 0.5) == 8
    assert to_unit(RATE, (5e-4 * 2e-2) ** 0.5) == pytest.approx(0.5)
    assert to_unit(SHARE, 0.525) == pytest.approx(0.5)


def test_positions_outside_the_unit_interval_are_moved_to_the_ends() -> None:
    assert (from_unit(RATE, -3.0), from_unit(RATE, 7.0)) == pytest.approx((5e-4, 2e-2))


def test_a_choice_has_no_place_on_a_scale() -> None:
    with pytest.raises(ValueError, match="parts is no number"):
        to_unit(PARTS, "qv")


@pytest.mark.parametrize("parameter", ALL)
@given(seed=seeds)
def test_random_values_and_exchanges_stay_in_the_domain(parameter: Parameter, seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = random_value(parameter, rng)
    others = exchanges(parameter, value, rng)
    assert all(parameter.contains(item) for item in [value, *others])
    assert value not in others
    assert len(set(others)) == len(others) >= 1


@pytest.mark.parametrize("parameter", [HALVINGS, FLAG, PARTS])
def test_few_values_all_neighbour_each_other(parameter: Parameter) -> None:
    rng = np.random.default_rng(0)
    for value in parameter.values:
        assert set(exchanges(parameter, value, rng)) == set(parameter.values) - {value}


def test_adjacent_integers_are_always_neighbours() -> None:
    rng = np.random.default_rng(0)
    for value in range(2, 64):
        assert {value - 1, value + 1} <= set(exchanges(RANK, value, rng))


def test_of_many_choices_a_few_are_neighbours() -> None:
    rng = np.random.default_rng(0)
    drawn = [exchanges(MANY, "c3", rng) for _ in range(50)]
    assert all(len(item) == FEW for item in drawn)
    assert set(itertools.chain(*drawn)) == set(MANY.choices) - {"c3"}
    assert set(exchanges(MANY, "c3", rng, few=19)) == set(MANY.choices) - {"c3"}


def test_every_value_is_drawn() -> None:
    rng = np.random.default_rng(0)
    for parameter in (HALVINGS, FLAG, PARTS):
        assert {random_value(parameter, rng) for _ in range(200)} == set(parameter.values)


def test_grids_hold_all_discrete_values_and_both_ends_of_a_range() -> None:
    assert grid(PARTS) == PARTS.choices
    assert grid(HALVINGS) == (0, 1, 2, 3, 4, 5)
    assert (grid(RATE)[0], grid(RATE)[-1]) == pytest.approx((5e-4, 2e-2))
    ratios = np.diff(np.log(grid(RATE)))
    assert ratios == pytest.approx(ratios[0])
