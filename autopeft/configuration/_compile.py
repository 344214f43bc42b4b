"""From a point to planned modules, and shrinking them to a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autopeft.configuration._configuration import Configuration, ModuleSpec, OptionValue, Site
from autopeft.configuration._expand import Point
from autopeft.configuration._profiles import PROFILES, profile_sizes
from autopeft.configuration._shapes import BackboneShapes, ModuleTypes
from autopeft.configuration._space import LayerRule, ModuleRule, SearchSpace
from autopeft.exceptions import ConfigurationError, InfeasibleError, UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModule:
    """A module at a site before the budget is applied.

    Args:
        rule: Where its type and options come from.
        layer: Layer it stands in.
        part: Part of the layer.
        size: Its size, >= 1; None for types without one.
    """

    rule: ModuleRule
    layer: int
    part: str
    size: int | None

    @property
    def spec(self) -> ModuleSpec:
        return ModuleSpec(type=self.rule.type, size=self.size, options=self.rule.options)

    @property
    def site(self) -> Site:
        return Site(layer=self.layer, part=self.part)


def canonical_options(rule: ModuleRule, module_types: ModuleTypes) -> ModuleRule:
    """The rule with options in their own type, and without those that only repeat the default.

    Raises:
        UnknownNameError: If there is no such module type.
        ConfigurationError: If the type has no such option.
    """
    if rule.type not in module_types:
        raise UnknownNameError("module type", rule.type, module_types)
    known = module_types[rule.type].options
    kept: list[tuple[str, OptionValue]] = []
    for name, value in rule.options:
        if name not in known:
            raise ConfigurationError(f"{rule.type} has no option {name!r}. Known: {', '.join(known) or 'none'}.")
        default = known[name].default
        typed = float(value) if isinstance(default, float) else value
        if typed != default:
            kept.append((name, typed))
    return replace(rule, options=tuple(kept))


#: Parameters of a planned module; 0 if the backbone lacks the site.
Counter = Callable[[PlannedModule], int]


def plan(space: SearchSpace, shapes: BackboneShapes, point: Point) -> list[PlannedModule]:
    """Expand a point to modules, the budget not yet applied and sites that the backbone lacks still included."""
    layers = _layers(space.layers, point)
    planned: list[PlannedModule] = []
    for rule in space.modules:
        there = [layer for layer in layers if point.holds(rule.condition, layer)]
        if not there:
            continue
        for layer, size in zip(there, _sizes(rule, there, shapes, point), strict=True):
            if size == 0:
                continue
            planned += [
                PlannedModule(rule=rule, layer=layer, part=part, size=size) for part in _parts(rule, layer, point)
            ]
    return planned


def _layers(rule: LayerRule, point: Point) -> list[int]:
    everything = range(point.n_layers)
    if rule.parameter is None:
        return list(everything)
    if rule.kind == "top_share":
        # The tolerance keeps a share such as 0.1 of 30 layers from becoming 4 by rounding error.
        n_top = max(1, math.ceil(point.value(rule.parameter) * point.n_layers - 1e-9))
        return list(everything)[-n_top:]
    if rule.kind == "bits":
        return [layer for layer in everything if point.value(rule.parameter, layer)]
    return _layers(dict(rule.rules)[point.value(rule.parameter)], point)


def _sizes(rule: ModuleRule, layers: Sequence[int], shapes: BackboneShapes, point: Point) -> Sequence[int | None]:
    """One size per layer; 0 where the module is absent, None for types without a size."""
    if rule.size is None:
        return [None] * len(layers)
    name = rule.size.parameter
    base = [rule.size.constant or 0 if name is None else int(point.value(name, layer)) for layer in layers]
    if rule.size.is_halvings:
        base = [shapes.hidden_size >> k for k in base]
    profile = rule.profile if rule.profile in PROFILES else point.value(rule.profile)
    if profile == "flat" or base[0] == 0:
        return base
    return profile_sizes(profile, base[0], len(layers))


def _parts(rule: ModuleRule, layer: int, point: Point) -> tuple[str, ...]:
    lists = dict(rule.parts.lists)
    return lists["" if rule.parts.parameter is None else point.value(rule.parts.parameter, layer)]


def shrink(modules: Sequence[PlannedModule], budget: int, count: Counter) -> list[PlannedModule]:
    """Scale all sizes by the largest common factor f in (0, 1] that fits the budget.

    Sizes become ``max(1, floor(f * size))``. They change only where f is a fraction j / size, so the largest factor is
    found exactly, by bisection over these fractions; modules without a size stay as they are.

    Args:
        modules: What to shrink; every module costs at least one parameter.
        budget: Cap in parameters.
        count: Parameters of one module, non-decreasing in its size.

    Returns:
        The modules with their new sizes, costing at most the budget.

    Raises:
        InfeasibleError: If they exceed the budget even at size 1.
    """
    full = sum(count(item) for item in modules)
    if full <= budget:
        return list(modules)
    sizes = {item.size for item in modules if item.size is not None}
    factors = sorted({(j / size, j, size) for size in sizes for j in range(1, size)})

    def scaled(factor: tuple[float, int, int]) -> list[PlannedModule]:
        _, j, size = factor
        return [item if item.size is None else replace(item, size=max(1, item.size * j // size)) for item in modules]

    smallest = at_size_one(modules)
    least = sum(count(item) for item in smallest)
    if least > budget:
        raise InfeasibleError(
            f"the point needs {least:,} parameters even with every size at 1 ({full:,} as drawn), "
            f"but the budget is {budget:,}."
        )
    best, low, high = smallest, 0, len(factors)
    while low < high:
        middle = (low + high) // 2
        candidate = scaled(factors[middle])
        if sum(count(item) for item in candidate) <= budget:
            best, low = candidate, middle + 1
        else:
            high = middle
    return best


def at_size_one(modules: Sequence[PlannedModule]) -> list[PlannedModule]:
    """The modules at the smallest size that scaling can bring them to."""
    return [item if item.size is None else replace(item, size=1) for item in modules]


def assemble(modules: Sequence[PlannedModule], learning_rate: float) -> Configuration:
    """The canonical configuration of planned modules."""
    return Configuration.make([(item.site, item.spec) for item in modules], learning_rate=learning_rate)
