"""The values of one parameter: on the unit interval, at random, next to another value, counted out."""

from __future__ import annotations

import math

import numpy as np

from autopeft.configuration import OptionValue, Parameter

#: Values at which a continuous parameter is tried when a space is counted out.
GRID = 33
#: Discrete parameters with at most this many other values have all of them as neighbours.
FEW = 8
#: Standard deviations of the steps along a number with many values, as shares of its range.
_STEPS = (0.03, 0.1, 0.3)


def to_unit(parameter: Parameter, value: OptionValue) -> float:
    """Position of a number in its range, on its scale.

    Args:
        parameter: An int or float parameter.
        value: In its domain.

    Returns:
        0 at ``low`` to 1 at ``high``.
    """
    low, high = _range(parameter)
    x = math.log(float(value)) if parameter.log else float(value)
    return (x - low) / (high - low)


def from_unit(parameter: Parameter, unit: float) -> OptionValue:
    """Inverse of `to_unit`; positions outside [0, 1] are moved to the nearer end, integers rounded."""
    low, high = _range(parameter)
    x = low + min(max(unit, 0.0), 1.0) * (high - low)
    least, most = _bounds(parameter)
    value = min(max(math.exp(x) if parameter.log else x, least), most)  # exp(log(x)) may leave the range by rounding
    return round(value) if parameter.type == "int" else value


def random_value(parameter: Parameter, rng: np.random.Generator) -> OptionValue:
    """A uniform draw, on the parameter's scale."""
    if parameter.type in ("bool", "categorical"):
        values = parameter.values or ()
        return values[int(rng.integers(len(values)))]
    return from_unit(parameter, float(rng.random()))


def grid(parameter: Parameter) -> tuple[OptionValue, ...]:
    """All values, or `GRID` evenly spaced ones of a continuous parameter."""
    if parameter.values is not None:
        return parameter.values
    return tuple(from_unit(parameter, i / (GRID - 1)) for i in range(GRID))


def exchanges(
    parameter: Parameter, value: OptionValue, rng: np.random.Generator, *, few: int = FEW
) -> list[OptionValue]:
    """Values that replace another one in a one-exchange neighbour.

    Args:
        parameter: Whose value is exchanged.
        value: The current one.
        rng: Chooses among many values.
        few: Up to this many values, all others are neighbours.

    Returns:
        Different values, the current one not among them. Numbers with many values: both adjacent integers, and short
        and long random steps. Categoricals with many values: a random choice of them.
    """
    others = [item for item in parameter.values or () if item != value]
    if parameter.type != "float" and len(others) <= few:
        return others
    if parameter.type == "categorical":
        return [others[int(i)] for i in rng.choice(len(others), size=few, replace=False)]
    unit = to_unit(parameter, value)
    stepped = [from_unit(parameter, unit + float(rng.normal(0.0, step))) for step in _STEPS]
    if parameter.type == "int":
        least, most = _bounds(parameter)
        stepped += [item for item in (int(value) - 1, int(value) + 1) if least <= item <= most]
    return [item for item in dict.fromkeys(stepped) if item != value]


def _bounds(parameter: Parameter) -> tuple[float, float]:
    """Smallest and largest value of a number."""
    if parameter.low is None or parameter.high is None:
        raise ValueError(f"{parameter.name} is no number.")
    return parameter.low, parameter.high


def _range(parameter: Parameter) -> tuple[float, float]:
    """Ends of a number's range on its scale."""
    least, most = _bounds(parameter)
    return (math.log(least), math.log(most)) if parameter.log else (float(least), float(most))
