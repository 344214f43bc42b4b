import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.objectives import Constraint, bounds_of, keeps_bounds, merge_constraints

NAMES = ("accuracy", "wall_time_s", "trainable_parameters", "export_class")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wall_time_s<=30", Constraint(name="wall_time_s", upper=30.0)),
        (" accuracy >= 0.6 ", Constraint(name="accuracy", lower=0.6)),
        ("trainable_parameters<=100k", Constraint(name="trainable_parameters", upper=100_000.0)),
        ("trainable_parameters<=2M", Constraint(name="trainable_parameters", upper=2e6)),
        ("wall_time_s<=1e-3", Constraint(name="wall_time_s", upper=1e-3)),
        ("export_class=lora, native", Constraint(name="export_class", allowed=("lora", "native"))),
    ],
)
def test_what_users_write(text: str, expected: Constraint) -> None:
    assert Constraint.parse(text) == expected


@pytest.mark.parametrize("text", ["wall_time_s", "wall_time_s<30", "<=30", "30>=wall_time_s", "wall_time_s<=", ""])
def test_what_is_no_constraint_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match="is written like 'wall_time_s<=30'"):
        Constraint.parse(text)


def test_bounds_are_finite_numbers() -> None:
    with pytest.raises(UsageError, match="'wall_time_s<=soon' is no number"):
        Constraint.parse("wall_time_s<=soon")
    with pytest.raises(UsageError, match="wall_time_s must be a finite number, but got nan"):
        Constraint.parse("wall_time_s<=nan")


def test_only_the_export_class_is_a_choice_of_words() -> None:
    with pytest.raises(UsageError, match="accuracy is bounded by <= or >="):
        Constraint.parse("accuracy=0.6")
    with pytest.raises(UsageError, match="needs a bound, or words that are allowed, not both"):
        Constraint(name="accuracy")


@given(lower=st.none() | st.floats(-1e6, 1e6), width=st.none() | st.floats(0, 1e6), value=st.floats(-2e6, 2e6))
def test_bounds_belong_to_what_is_allowed(lower: float | None, width: float | None, value: float) -> None:
    if lower is None and width is None:
        return
    upper = None if width is None else (lower or 0.0) + width
    constraint = Constraint(name="x", lower=lower, upper=upper)
    assert constraint.allows(value) == (
        (value >= lower if lower is not None else True) and (value <= upper if upper is not None else True)
    )
    assert all(constraint.allows(bound) for bound in (lower, upper) if bound is not None)


@given(st.sampled_from([Constraint.parse(text) for text in ("a<=3", "a>=-1.5", "export_class=lora,native")]))
def test_json_and_back(constraint: Constraint) -> None:
    assert Constraint.from_dict(json.loads(json.dumps(constraint.to_dict()))) == constraint


def test_several_bounds_of_one_quantity_become_the_tightest() -> None:
    given_ = [
        Constraint.parse(text) for text in ("wall_time_s<=30", "accuracy>=0.5", "wall_time_s<=20", "accuracy<=0.9")
    ]
    assert merge_constraints(given_, NAMES) == (
        Constraint(name="accuracy", lower=0.5, upper=0.9),
        Constraint(name="wall_time_s", upper=20.0),
    )


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (("wall_time_s<=30", "accuracy>=0.5", "wall_time_s>=40"), ("wall_time_s<=30", "wall_time_s>=40")),
        (("export_class=lora", "export_class=native"), ("export_class=lora", "export_class=native")),
    ],
)
def test_contradictions_name_both(texts: tuple[str, ...], named: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=f"{named[0]} and {named[1]} contradict each other"):
        merge_constraints([Constraint.parse(text) for text in texts], NAMES)


def test_what_was_not_measured_keeps_no_bound() -> None:
    constraints = [Constraint.parse(text) for text in ("a<=3", "b>=1", "export_class=lora")]
    assert bounds_of(constraints) == tuple(constraints[:2])
    assert keeps_bounds(constraints, {"a": 3.0, "b": 1.0}.get), "words are not looked at"
    assert not keeps_bounds(constraints, {"a": 3.0, "b": 0.9}.get)
    assert not keeps_bounds(constraints, {"a": 3.0}.get)
    assert keeps_bounds([], {}.get)


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown constraint 'wall_time'"):
        merge_constraints([Constraint.parse("wall_time<=3")], NAMES)


def test_a_bound_that_is_reached_is_no_contradiction() -> None:
    both = merge_constraints([Constraint.parse("accuracy>=0.5"), Constraint.parse("accuracy<=0.5")], NAMES)
    assert both[0].allows(0.5)
    assert str(both[0]) == "accuracy>=0.5 and accuracy<=0.5"
