from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from autopeft.exceptions import RewardError
from autopeft.rewards import REWARDS, RewardPanel, RewardValue, reward
from autopeft.rewards._function import declared
from tests.training.toys import job, lora, toy_runner


def made(value, **keywords):
    @reward(direction="minimize", **{"name": "mine", **keywords})
    def function(candidate):
        if isinstance(value, Exception):
            raise value
        return value

    found = declared(function)
    assert found is not None
    return found


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1)])
def test_any_real_number_is_a_value(value):
    assert RewardPanel([made(value)]).measure(None).metrics == {"mine": 1.0}


def test_details_stand_behind_the_reward_s_name_and_costs_among_costs():
    value = RewardValue(value=2.0, details={"part": 1.0})
    found = RewardPanel([made(value), made(3.0, name="toll", is_cost=True)]).measure(None)
    assert found.metrics == {"mine": 2.0, "mine.part": 1.0}
    assert found.costs == {"toll": 3.0}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "mine must be a number, but got NoneType None"),
        ("0.5", "mine must be a number, but got str '0.5'"),
        (True, "mine must be a number, but got bool True"),
        (np.array([0.5, 0.6]), "mine must be a number, but got ndarray"),
        (1 + 2j, "mine must be a number, but got complex"),
        (Decimal(1), "mine must be a number, but got Decimal"),
        (float("nan"), "mine must be finite, but got nan"),
        (np.float32("inf"), "mine must be finite, but got inf"),
        (RewardValue(value=1.0, details={"part": float("nan")}), "mine.part must be finite"),
        (RewardValue(value=1.0, details=[1.0]), "details must be numbers by name, but got list"),  # type: ignore[arg-type]
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_whatever_is_no_finite_number_names_the_reward(value, words):
    with pytest.raises(RewardError) as error:
        RewardPanel([made(value)]).measure(None)
    assert str(error.value).startswith("reward mine: ")
    assert words in str(error.value)
    assert error.value.name == "mine"


def raising(error):
    @reward(direction="minimize")
    def ends(candidate):
        raise error

    return RewardPanel([declared(ends)])


def test_an_interrupt_passes():
    with pytest.raises(KeyboardInterrupt):
        raising(KeyboardInterrupt()).measure(None)


def test_a_function_that_exits_ends_its_trial_alone():
    with pytest.raises(RewardError, match="reward ends: SystemExit: 3"):
        raising(SystemExit(3)).measure(None)


def test_reserve_is_the_largest_and_names_are_in_order():
    panel = RewardPanel([REWARDS["calibration_error"], REWARDS["memorization"]])
    assert panel.reserve(1000) == 300
    assert panel.names == ("calibration_error", "memorization")
    assert RewardPanel([]).reserve(1000) == 0


def test_built_in_rewards_together_twice_give_the_same():
    # A time is never the same twice; forgetting needs a checkpoint, which a toy does not have.
    names = [name for name in REWARDS if name not in ("latency_s", "forgetting")]
    panel = RewardPanel([REWARDS[name] for name in names])
    found = []
    for _ in range(2):
        from tests.training.toys import toy_task

        runner = toy_runner(task=toy_task(n_train=200), rewards=panel)
        (outcome,) = runner.run([job(lora((0, 1)), n=100)])
        (item,) = outcome.measurements
        found.append({**item.metrics, **{k: v for k, v in item.costs.items() if k.startswith("inference")}})
    assert found[0] == found[1]
    assert set(names) <= set(found[0])
