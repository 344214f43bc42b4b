"""Oracle: brute force over scaling factors."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration._compile import PlannedModule
from autopeft.configuration._shrink import at_size_one, shrink
from autopeft.configuration._space import ModuleRule, PartsRule, SizeRule
from autopeft.exceptions import InfeasibleError
from tests.configuration.examples import patient

RULE = ModuleRule(name="lora", type="lora", parts=PartsRule(lists=(("", ("q",)),)), size=SizeRule(constant=1))


def planned(sizes: list[int | None]) -> list[PlannedModule]:
    return [PlannedModule(rule=RULE, layer=layer, part="q", size=size) for layer, size in enumerate(sizes)]


class BySize(dict[int | None, int]):
    """What `cost` says at every size."""

    def __init__(self, item: PlannedModule) -> None:
        self.item = item

    def __missing__(self, size: int | None) -> int:
        return cost(self.item.resized(size))


def cost(item: PlannedModule) -> int:
    """Affine in the size, different in each layer; modules without a size cost 7."""
    return 7 if item.size is None else (item.layer + 2) * item.size + 3


def scaled(sizes: list[int | None], factor: Fraction) -> list[int | None]:
    return [None if size is None else max(1, int(size * factor)) for size in sizes]


@patient
@given(st.lists(st.none() | st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 1500))
def test_shrink_finds_the_largest_factor(sizes: list[int | None], budget: int) -> None:
    """Oracle: every factor j / size in exact fractions, the largest that fits."""
    factors = {Fraction(j, size) for size in sizes if size is not None for j in range(1, size + 1)} | {Fraction(1)}
    fitting = [
        candidate for factor in sorted(factors) if sum(map(cost, planned(candidate := scaled(sizes, factor)))) <= budget
    ]
    least = sum(map(cost, at_size_one(planned(sizes))))
    if least > budget:
        with pytest.raises(InfeasibleError, match=f"needs {least:,} parameters even with every size at 1"):
            shrink(planned(sizes), budget, BySize)
        return
    found = [item.size for item in shrink(planned(sizes), budget, BySize)]
    assert found == (fitting[-1] if fitting else [None if size is None else 1 for size in sizes])
