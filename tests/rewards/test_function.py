from __future__ import annotations

import pytest

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.objectives import Direction
from autopeft.rewards import REWARDS, check_reward, objective_of, reward
from autopeft.rewards._function import declared
from tests.training.toys import toy_task


@reward(direction="minimize", unit="classes", source="arXiv 0000.00000", cost="nothing", kinds=("classification",))
def unused_classes(candidate):
    """Classes that are never predicted.

    More words.
    """
    return 0.0


def test_declaration_is_kept_beside_the_function():
    assert unused_classes(None) == 0.0
    made = declared(unused_classes)
    assert (made.name, made.unit, made.summary) == ("unused_classes", "classes", "Classes that are never predicted.")
    assert (made.source, made.cost, made.kinds) == ("arXiv 0000.00000", "nothing", {"classification"})
    assert made.direction(toy_task()) is Direction.MINIMIZE
    objective = objective_of(made, toy_task())
    assert (objective.name, objective.unit, objective.is_known) == ("unused_classes", "classes", False)


def test_undeclared_is_none():
    assert declared(lambda candidate: 0.0) is None
    assert declared(3) is None


def test_code_is_part_of_the_settings():
    def one():
        @reward(direction="minimize")
        def value(candidate):
            return 1.0

        return declared(value).settings()

    def other():
        @reward(direction="minimize")
        def value(candidate):
            return 2.0

        return declared(value).settings()

    assert one() == one() != other()
    assert set(one()) == {"code"}


@pytest.mark.parametrize("direction", ["up", "MAX", None])
def test_direction_must_be_one(direction):
    with pytest.raises(UnknownNameError, match=r"unknown direction.*Known: maximize, minimize"):
        reward(direction=direction)


def test_kind_must_be_one():
    with pytest.raises(UnknownNameError, match="unknown kind 'ranking'"):
        reward(direction="minimize", kinds=("ranking",))


@pytest.mark.parametrize("name", ["Loud", "two words", "a.b", "9lives", "a:b"])
def test_name_must_be_plain(name):
    with pytest.raises(UsageError, match="a reward's name must consist of lower-case letters"):
        reward(direction="minimize", name=name)(lambda candidate: 0.0)


def test_lambda_needs_a_name():
    with pytest.raises(UsageError, match="<lambda>"):
        reward(direction="minimize")(lambda candidate: 0.0)


def test_reward_of_another_kind_of_task_is_refused_with_the_reason():
    with pytest.raises(UsageError, match="unused_classes is defined for classification tasks, but toy is a regression"):
        check_reward(declared(unused_classes), toy_task(regression=True))
    with pytest.raises(UsageError, match="calibration_error is defined for classification"):
        check_reward(REWARDS["calibration_error"], toy_task(regression=True))
    check_reward(REWARDS["robustness"], toy_task(regression=True))
