"""Hard constraints: bounds that a configuration must keep, whatever else it is good at."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from autopeft.exceptions import UnknownNameError, UsageError

#: Name of the constraint on how a configuration can be exported: the only one on words.
EXPORT_CLASS = "export_class"
_PATTERN = re.compile(r"\s*(?P<name>[A-Za-z_][\w.]*)\s*(?P<sign><=|>=|=)\s*(?P<bound>\S.*?)\s*")
_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound on a quantity of a trial, in natural units, or a choice of words.

    Args:
        name: Key of the measurement, for example ``"wall_time_s"``; of a known cost; or ``"export_class"``.
        lower: Smallest value allowed; None for no lower bound.
        upper: Largest value allowed; None for no upper bound.
        allowed: The words allowed, for ``"export_class"``; empty otherwise.
    """

    name: str
    lower: float | None = None
    upper: float | None = None
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = [value for value in (self.lower, self.upper) if value is not None]
        if bool(bounds) == bool(self.allowed):
            raise UsageError(f"a constraint on {self.name} needs a bound, or words that are allowed, not both.")
        for value in bounds:
            if not math.isfinite(value):
                raise UsageError(f"the bound of {self.name} must be a finite number, but got {value}.")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise UsageError(f"{self} allows nothing: its lower bound is above its upper one.")

    def allows(self, value: float) -> bool:
        """Whether a natural value keeps the bounds."""
        return (self.lower is None or value >= self.lower) and (self.upper is None or value <= self.upper)

    def __str__(self) -> str:
        if self.allowed:
            return f"{self.name}={','.join(self.allowed)}"
        parts = [] if self.lower is None else [f"{self.name}>={self.lower:.12g}"]
        parts += [] if self.upper is None else [f"{self.name}<={self.upper:.12g}"]
        return " and ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` is its inverse."""
        return {"name": self.name, "lower": self.lower, "upper": self.upper, "allowed": list(self.allowed)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Constraint:
        """Rebuild a constraint from `to_dict`."""
        return cls(**{**data, "allowed": tuple(data.get("allowed", ()))})

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``"wall_time_s<=30"``, ``"accuracy>=0.6"``, ``"trainable_parameters<=100k"``, ``"export_class=lora"``.

        Raises:
            UsageError: If it is none of these.
        """
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise UsageError(
                f"a constraint is written like 'wall_time_s<=30', 'accuracy>=0.6' or 'export_class=lora,native', "
                f"but got {text!r}."
            )
        name, sign, bound = found["name"], found["sign"], found["bound"]
        if sign == "=":
            if name != EXPORT_CLASS:
                raise UsageError(f"{name} is bounded by <= or >=, but got {text!r}; = is for {EXPORT_CLASS} alone.")
            words = tuple(dict.fromkeys(word.strip() for word in bound.split(",") if word.strip()))
            return cls(name=name, allowed=words)
        value = _number(bound, text)
        return cls(name=name, upper=value) if sign == "<=" else cls(name=name, lower=value)


def bounds_of(constraints: Iterable[Constraint]) -> tuple[Constraint, ...]:
    """Those on numbers; the one on words says what is proposed, not what is measured."""
    return tuple(item for item in constraints if not item.allowed)


def keeps_bounds(constraints: Iterable[Constraint], value_of: Callable[[str], float | None]) -> bool:
    """Whether a trial is known to keep every bound: what was not measured is not known to.

    Args:
        constraints: Bounds; those on words are not looked at.
        value_of: Gives a natural value of the trial by name; None where it was not measured.
    """
    return all((value := value_of(item.name)) is not None and item.allows(value) for item in bounds_of(constraints))


def _number(bound: str, text: str) -> float:
    factor = _UNITS.get(bound[-1:].lower(), 1.0)
    try:
        return float(bound[:-1] if factor != 1.0 else bound) * factor
    except ValueError:
        raise UsageError(f"the bound in {text!r} is no number; write it like 30, 0.6, 100k or 2M.") from None


def merge_constraints(constraints: Sequence[Constraint], names: Collection[str]) -> tuple[Constraint, ...]:
    """One constraint per name, the tighter bounds of all.

    Args:
        constraints: As the user gave them.
        names: Names that can be constrained.

    Returns:
        Sorted by name.

    Raises:
        UnknownNameError: If a name is none of these.
        UsageError: If two contradict each other; the message names both.
    """
    for item in constraints:
        if item.name not in names:
            raise UnknownNameError("constraint", item.name, names)
    for left, right in itertools.combinations(constraints, 2):
        if left.name == right.name and _tighter(left, right) is None:
            raise UsageError(f"the constraints {left} and {right} contradict each other: nothing keeps both. Drop one.")
    merged: dict[str, Constraint] = {}
    for item in constraints:
        other = merged.get(item.name)
        both = item if other is None else _tighter(other, item)
        if both is None:  # three word lists of which only each pair has a word in common
            raise UsageError(f"the constraints {other} and {item} contradict each other: nothing keeps both. Drop one.")
        merged[item.name] = both
    return tuple(merged[name] for name in sorted(merged))


def _tighter(left: Constraint, right: Constraint) -> Constraint | None:
    """What keeps both; None if nothing can."""
    if left.allowed or right.allowed:
        words = tuple(word for word in left.allowed if word in right.allowed)
        return Constraint(name=left.name, allowed=words) if words else None
    lowers = [item.lower for item in (left, right) if item.lower is not None]
    uppers = [item.upper for item in (left, right) if item.upper is not None]
    lower, upper = max(lowers, default=None), min(uppers, default=None)
    if lower is not None and upper is not None and lower > upper:
        return None
    return Constraint(name=left.name, lower=lower, upper=upper)
