"""From a point to planned modules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autopeft.configuration._configuration import ModuleSpec, OptionValue, Site
from autopeft.configuration._expand import Point
from autopeft.configuration._option import rounded_option, typed_option
from autopeft.configuration._parameter import same_value
from autopeft.configuration._profiles import PROFILES, profile_sizes
from autopeft.configuration._score_rules import Place, best_layers, chosen_places, number_at, place_sizes
from autopeft.configuration._scores import score_source
from autopeft.configuration._shapes import BackboneShapes, ModuleOption, ModuleTypes
from autopeft.configuration._space import LayerRule, ModuleRule, OptionRule, SearchSpace
from autopeft.exceptions import ConfigurationError, UnknownNameError

#: Names and values, sorted by name.
Options = tuple[tuple[str, OptionValue], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModule:
    """A module at a site before the budget is applied.

    Args:
        rule: Where it comes from.
        layer: Layer it stands in; 0 outside the layers.
        part: Part of the layer.
        size: Its size, >= 1; None for types without one.
        options: Its options, sorted by name, without those that only repeat the default.
    """

    rule: ModuleRule
    layer: int
    part: str
    size: int | None
    options: Options = ()

    @property
    def spec(self) -> ModuleSpec:
        return ModuleSpec(type=self.rule.type, size=self.size, options=self.options)

    @property
    def site(self) -> Site:
        return Site(layer=None if self.part == "embedding" else self.layer, part=self.part)

    def resized(self, size: int | None) -> PlannedModule:
        """The same module at another size."""
        # Some thirty times per point: several times faster than `dataclasses.replace`.
        return PlannedModule(rule=self.rule, layer=self.layer, part=self.part, size=size, options=self.options)


def canonical_options(rule: ModuleRule, module_types: ModuleTypes) -> ModuleRule:
    """The rule with fixed options in their own type, and without those that only repeat the default.

    Raises:
        UnknownNameError: If there is no such module type.
        ConfigurationError: If the type has no such option.
    """
    if rule.type not in module_types:
        raise UnknownNameError("module type", rule.type, module_types)
    known = module_types[rule.type].options
    for name, _ in rule.options:
        if name not in known:
            raise ConfigurationError(f"{rule.type} has no option {name!r}. Known: {', '.join(known) or 'none'}.")
    fixed = dict(without_defaults(rule.fixed_options, known))
    kept = [
        (name, option if option.is_searched else replace(option, constant=fixed[name]))
        for name, option in rule.options
        if option.is_searched or name in fixed
    ]
    return replace(rule, options=tuple(kept))


def without_defaults(options: Options, known: Mapping[str, ModuleOption]) -> Options:
    """Options in the types of their defaults, those that repeat a default left out."""
    typed = [(name, typed_option(known[name], value)) for name, value in options]
    return tuple((name, value) for name, value in typed if not same_value(value, known[name].default))


def option_columns(
    options: Sequence[tuple[str, OptionRule]], known: Mapping[str, ModuleOption], layers: Sequence[int], point: Point
) -> list[Options]:
    """The options at a point, layer by layer, as `without_defaults` leaves them.

    Args:
        options: Rules, sorted by name.
        known: Options of the type.
        layers: Layers that carry the module.
        point: The point.
    """
    if not any(rule.is_searched for _, rule in options):
        fixed = tuple((name, rule.constant) for name, rule in options if rule.constant is not None)
        return [without_defaults(fixed, known)] * len(layers)
    columns = [(name, _option_values(rule, layers, point)) for name, rule in options]
    return [without_defaults(tuple((name, values[i]) for name, values in columns), known) for i in range(len(layers))]


def _option_values(rule: OptionRule, layers: Sequence[int], point: Point) -> Sequence[OptionValue]:
    if rule.parameter is not None:
        values = [rounded_option(point.value(rule.parameter, layer)) for layer in layers]
    else:
        values = [] if rule.constant is None else [rule.constant] * len(layers)
    profile = rule.profile if rule.profile in PROFILES else point.value(rule.profile)
    return values if profile == "flat" else profile_sizes(profile, int(values[0]), len(layers))


def plan(space: SearchSpace, shapes: BackboneShapes, module_types: ModuleTypes, point: Point) -> list[PlannedModule]:
    """Expand a point to modules, the budget not yet applied and sites that the backbone lacks still included."""
    layers = _layers(space.layers, point)
    planned: list[PlannedModule] = []
    for rule in space.modules:
        # What stands outside the layers is planned once, as if at the bottom layer.
        there = point.layers_where(rule.condition, [0] if rule.parts.is_embedding else layers)
        if not there:
            continue
        places = [(layer, part) for layer in there for part in _parts(rule, layer, point)]
        if rule.sites is not None:
            places = chosen_places(rule.sites, places, point)
        sizes = _sizes(rule, places, there, shapes, point)
        columns = option_columns(rule.options, module_types[rule.type].options, there, point)
        options = dict(zip(there, columns, strict=True))
        planned += [
            PlannedModule(rule=rule, layer=layer, part=part, size=sizes[layer, part], options=options[layer])
            for layer, part in places
            if sizes.get((layer, part), 0) != 0
        ]
    return planned


def _layers(rule: LayerRule, point: Point) -> list[int]:
    everything = range(point.n_layers)
    if rule.parameter is None:
        return list(everything)
    if rule.kind in ("top_share", "top_score"):
        # The tolerance keeps a share such as 0.1 of 30 layers from becoming 4 by rounding error.
        n_top = max(1, math.ceil(point.value(rule.parameter) * point.n_layers - 1e-9))
        return list(everything)[-n_top:] if rule.source is None else best_layers(rule.source, n_top, point)
    if rule.kind == "bits":
        return [layer for layer in everything if point.value(rule.parameter, layer)]
    return _layers(dict(rule.rules)[point.value(rule.parameter)], point)


def _sizes(
    rule: ModuleRule, places: Sequence[Place], layers: Sequence[int], shapes: BackboneShapes, point: Point
) -> Mapping[Place, int | None]:
    """One size per place; 0 or missing where the module is absent, None for types without a size.

    Args:
        rule: The module.
        places: Where it stands.
        layers: The layers that carry it: a profile over the depth spreads the size over them.
        shapes: The backbone.
        point: The point.
    """
    if rule.size is None:
        return dict.fromkeys(places)
    name = rule.size.parameter
    base = [rule.size.constant or 0 if name is None else int(point.value(name, layer)) for layer in layers]
    if rule.size.is_halvings:
        base = [shapes.hidden_size >> k for k in base]
    is_named = rule.profile in PROFILES or score_source(rule.profile) is not None
    profile: str = rule.profile if is_named else point.value(rule.profile)
    if score_source(profile) is not None and base[0] > 0:
        return place_sizes(profile, base[0], number_at(rule.exponent, point), places, point)
    if profile in PROFILES and profile != "flat" and base[0] > 0:
        base = list(profile_sizes(profile, base[0], len(layers)))
    by_layer = dict(zip(layers, base, strict=True))
    return {place: by_layer[place[0]] for place in places}


def _parts(rule: ModuleRule, layer: int, point: Point) -> tuple[str, ...]:
    lists = dict(rule.parts.lists)
    return lists["" if rule.parts.parameter is None else point.value(rule.parts.parameter, layer)]
