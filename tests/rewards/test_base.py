from __future__ import annotations

import re

import pytest

from autopeft.rewards import REWARDS, RewardPanel, objective_of
from tests.training.toys import toy_task


@pytest.mark.parametrize("name", REWARDS)
def test_every_built_in_says_what_it_is(name):
    item = REWARDS[name]
    assert item.name == name
    assert item.summary
    assert item.cost
    assert re.search(r"arXiv \d{4}\.\d{5}", item.source)
    objective = objective_of(item, toy_task())
    assert (objective.name, objective.direction, objective.unit) == (name, item.direction(toy_task()), item.unit)
    assert all(isinstance(value, int | float | str | None) for value in item.settings().values())


def test_units_are_in_the_names_of_costs():
    for name, item in REWARDS.items():
        assert item.is_cost == name.endswith(("_s", "_bytes"))
        if item.is_cost:
            assert item.unit == {"_s": "s", "es": "bytes"}[name[-2:]]


def test_a_built_in_without_a_measure_says_so():
    from autopeft.rewards import BuiltinReward

    with pytest.raises(NotImplementedError):
        BuiltinReward().measure(None)


def test_options_are_settings():
    assert REWARDS["memorization"].settings() == {"share": 0.3, "max_examples": 1000}
    assert RewardPanel([REWARDS["calibration_error"]]).rewards[0].settings() == {"bins": 15}
