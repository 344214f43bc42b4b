"""Shrinking planned modules to a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autopeft.configuration._compile import PlannedModule
from autopeft.exceptions import InfeasibleError

#: Parameters of a planned module by its size, 0 if the backbone lacks the site. Asking for a size that the module's
#: type refuses raises InfeasibleError.
Counts = Mapping[int | None, int]
Counter = Callable[[PlannedModule], Counts]
_Sizes = list[int | None]


def shrink(modules: Sequence[PlannedModule], budget: int, count: Counter, *, shared: int = 0) -> list[PlannedModule]:
    """Scale all sizes by the largest common factor f in (0, 1] that fits the budget.

    Sizes become ``max(1, floor(f * size))``. They change only where f is a fraction j / size, so the largest factor is
    found exactly, by bisection over these fractions; modules without a size stay as they are.

    Args:
        modules: What to shrink; every module costs at least one parameter.
        budget: Cap in parameters.
        count: Parameters of one module, non-decreasing in its size.
        shared: Parameters that the modules have in common, whatever their sizes.

    Returns:
        The modules with their new sizes, costing at most the budget.

    Raises:
        InfeasibleError: If they exceed the budget at the smallest sizes that their types accept.
    """
    counts = [count(item) for item in modules]
    sizes = [item.size for item in modules]
    full, room = sum(map(_at, counts, sizes)), budget - shared
    if full <= room:
        return list(modules)
    factors = _factors(sizes)
    low, high = 0, len(factors)
    while low < high:
        middle = (low + high) // 2
        total = _total(counts, _scaled(sizes, factors[middle]))
        # What a type refuses is passed over, here and on the way down: only accepted sizes grow with their counts.
        low, high = (middle + 1, high) if total is None or total <= room else (low, middle)
    for factor in reversed(factors[:low]):
        smaller = _scaled(sizes, factor)
        total = _total(counts, smaller)
        if total is not None and total <= room:
            return _resized(modules, smaller)
    raise InfeasibleError(_too_large(modules, budget, count, drawn=shared + full, shared=shared))


def at_size_one(modules: Sequence[PlannedModule]) -> list[PlannedModule]:
    """The modules at the smallest size that scaling can bring them to."""
    return [item if item.size is None else item.resized(1) for item in modules]


def at_smallest(modules: Sequence[PlannedModule], count: Counter) -> list[PlannedModule]:
    """Modules that their types accept, at the smallest sizes that scaling can bring them to and still are accepted."""
    counts = [count(item) for item in modules]
    sizes = [item.size for item in modules]
    smaller = (_scaled(sizes, factor) for factor in _factors(sizes))
    return _resized(modules, next((found for found in smaller if _total(counts, found) is not None), sizes))


def _factors(sizes: _Sizes) -> np.ndarray:
    """Fractions j / size below 1 at which a size changes, as rows [j, size], ascending; [0, 1] stands for all at 1."""
    whole = sorted({size for size in sizes if size is not None})
    j = np.concatenate([[0], *(np.arange(1, size) for size in whole)])
    of = np.concatenate([[1], *(np.full(size - 1, size) for size in whole)])
    return np.stack([j, of], axis=1)[np.argsort(j / of)]


def _scaled(sizes: _Sizes, factor: np.ndarray) -> _Sizes:
    j, of = factor.tolist()
    return [None if size is None else max(1, size * j // of) for size in sizes]


def _at(counts: Counts, size: int | None) -> int:
    return counts[size]


def _total(counts: Sequence[Counts], sizes: _Sizes) -> int | None:
    """Parameters of all modules; None if a type refuses one."""
    try:
        return sum(map(_at, counts, sizes))
    except InfeasibleError:
        return None


def _resized(modules: Sequence[PlannedModule], sizes: _Sizes) -> list[PlannedModule]:
    return [item if item.size == size else item.resized(size) for item, size in zip(modules, sizes, strict=True)]


def _too_large(modules: Sequence[PlannedModule], budget: int, count: Counter, *, drawn: int, shared: int) -> str:
    """Why a budget cannot be kept, and what to do."""
    smallest = at_smallest(modules, count)
    least = shared + sum(count(item)[item.size] for item in smallest)
    sizes = "every size at 1" if smallest == at_size_one(modules) else "the smallest sizes that their types accept"
    return (
        f"the point needs {least:,} parameters even with {sizes} ({drawn:,} as drawn), but the budget is {budget:,}. "
        f"It has {_makeup(modules)}; leave something out, or raise the budget to {least:,} or more."
    )


def _makeup(modules: Sequence[PlannedModule]) -> str:
    """Which rules at how many sites make up a point, with the parameters that decide it."""
    words = []
    for rule in {item.rule.name: item.rule for item in modules}.values():
        n_sites = sum(item.rule.name == rule.name for item in modules)
        size = None if rule.size is None else rule.size.parameter
        names = [name for name in (size, rule.parts.parameter) if name is not None]
        names += [name for name, _ in (() if rule.condition is None else rule.condition.terms)]
        decided = f" ({', '.join(dict.fromkeys(names))})" if names else ""
        words.append(f"{rule.name} at {n_sites} {'site' if n_sites == 1 else 'sites'}{decided}")
    return " and ".join(words)
