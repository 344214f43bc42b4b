"""What a planned module becomes at its site: its canonical description and its exact count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autopeft.configuration._compile import PlannedModule, without_defaults
from autopeft.configuration._configuration import ModuleSpec, OptionValue, Placement, Site
from autopeft.configuration._parameter import show
from autopeft.configuration._shapes import (
    BackboneShapes,
    ModuleTypes,
    ReplacingType,
    SharingType,
    shared_parameter_count,
)
from autopeft.configuration._space import ModuleRule
from autopeft.exceptions import ConfigurationError, InfeasibleError

_Key = tuple[str, int, str, tuple[tuple[str, OptionValue], ...]]
#: Placements, each with its exact count.
Placed = Sequence[tuple[Placement, int]]
#: An option's name, the parameters that decide it, and what they made it.
_Decided = tuple[str, tuple[str, ...], str]


def canonical_spec(spec: ModuleSpec, module_types: ModuleTypes) -> ModuleSpec:
    """The one way to write a module, as its type defines it; options that repeat a default are left out."""
    kind: Any = module_types[spec.type]
    # What `isinstance(kind, CanonicalType)` would say, which is slow, and asked of every new module.
    if not hasattr(kind, "canonical"):
        return spec
    found = kind.canonical(spec)
    options = without_defaults(found.options, module_types[found.type].options)
    return ModuleSpec(type=found.type, size=found.size, options=options)


def placements(
    spec: ModuleSpec, site: Site, module_types: ModuleTypes, shapes: BackboneShapes
) -> tuple[tuple[Site, ModuleSpec, int], ...]:
    """What a module at a site is, canonically: modules with their sites and exact counts.

    Raises:
        ConfigurationError: If its type refuses it.
    """
    found = canonical_spec(spec, module_types)
    kind: Any = module_types[found.type]
    parts = kind.expand(found, site) if hasattr(kind, "expand") else None
    # The whole is counted, and refused, as what it was asked for.
    total = kind.parameter_count(found, site, shapes)
    if parts is None or total == 0:
        return ((site, found, total),)
    inner = [(at, canonical_spec(item, module_types)) for at, item in parts]
    counted = [(at, item, module_types[item.type].parameter_count(item, at, shapes)) for at, item in inner]
    return tuple(entry for entry in counted if entry[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Placer:
    """Describes and counts planned modules on a backbone, each combination once.

    Args:
        shapes: The backbone.
        module_types: Module types by name.
    """

    shapes: BackboneShapes
    module_types: ModuleTypes = field(repr=False)
    _known: dict[_Key, _CountsBySize] = field(init=False, repr=False, default_factory=dict)
    _replacing: dict[str, bool] = field(init=False, repr=False, default_factory=dict)

    def placements(self, item: PlannedModule) -> Placed:
        """What it is canonically, as `placements`; about errors as `count`."""
        return self.counts(item).placements(item.size)

    def count(self, item: PlannedModule) -> int:
        """Trainable parameters; 0 if the backbone lacks the site.

        Raises:
            InfeasibleError: If the type refuses the combination of size and options at this site; the message names
                the parameters that decided it.
        """
        return self.counts(item)[item.size]

    def counts(self, item: PlannedModule) -> _CountsBySize:
        """`count` of the module at any size, whatever its own is."""
        key = (item.rule.name, item.layer, item.part, item.options)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _CountsBySize(item, self.shapes, self.module_types)
        return found

    def shared_count(self, modules: Sequence[PlannedModule]) -> int:
        """Trainable parameters that planned modules have in common, whatever their sizes.

        Raises:
            InfeasibleError: If they cannot share; the message names the parameters that decided it.
        """
        specs = [placement.module for item in modules for placement, _ in self.placements(item)]
        try:
            return shared_parameter_count(specs, self.module_types)
        except ConfigurationError as error:
            raise InfeasibleError(shared_refusal(modules, self.module_types, error)) from error

    def placed(self, modules: Sequence[PlannedModule]) -> Placed:
        """Planned modules as placements in a configuration's order, with their exact counts.

        Raises:
            InfeasibleError: If two of them turn out to be of one type at one site, or to train the same tensors.
        """
        owners: dict[tuple[Site, str], ModuleRule] = {}
        found: list[tuple[Placement, int]] = []
        for item in modules:
            placed = self.placements(item)
            for placement, _ in placed:
                self._claim(owners, item.rule, placement.site, placement.module.type)
            found += placed
        return sorted(found, key=lambda entry: entry[0].sort_key)

    def _claim(self, owners: dict[tuple[Site, str], ModuleRule], rule: ModuleRule, site: Site, type_name: str) -> None:
        """Note whose a type is at a site, and whose the site's own tensors are."""
        where = site.part if site.layer is None else f"{site.part} of layer {site.layer}"
        other = owners.setdefault((site, type_name), rule)
        if other.name != rule.name:
            raise InfeasibleError(
                f"{other.name} and {rule.name} both become {type_name} at {where}. {_deciding(other, rule)}"
            )
        if type_name not in self._replacing:  # asking a protocol is slow, and asked for every module of every point
            self._replacing[type_name] = isinstance(self.module_types[type_name], ReplacingType)
        if self._replacing[type_name]:
            other = owners.setdefault((site, "its own tensors"), rule)
            if other.name != rule.name:
                raise InfeasibleError(
                    f"{other.name} and {rule.name} both train the tensors of {where} themselves; leave one of them "
                    f"out. {_deciding(other, rule)}"
                )


class _CountsBySize(dict[int | None, int]):
    """Counts of one planned module by its size, each worked out when it is first asked for.

    Args:
        item: The module, at any size.
        shapes: The backbone.
        module_types: Module types by name.
    """

    def __init__(self, item: PlannedModule, shapes: BackboneShapes, module_types: ModuleTypes) -> None:
        super().__init__()
        self._item, self._shapes, self._module_types = item, shapes, module_types
        self._refused: dict[int | None, str] = {}
        # At the sizes that were counted.
        self._placed: dict[int | None, Placed] = {}

    def placements(self, size: int | None) -> Placed:
        """What the module is canonically at a size; raises as counting it does."""
        if size not in self._placed:
            self.__missing__(size)
        return self._placed[size]

    def __missing__(self, size: int | None) -> int:
        if size not in self._refused:
            item = self._item.resized(size)
            try:
                found = placements(item.spec, item.site, self._module_types, self._shapes)
            except ConfigurationError as error:
                self._refused[size] = refusal(item, self._module_types, error)
            else:
                # All configurations share these placements.
                self._placed[size] = [(Placement(site=site, module=spec), count) for site, spec, count in found]
                self[size] = sum(count for _, _, count in found)
                return self[size]
        raise InfeasibleError(self._refused[size])


def refusal(item: PlannedModule, module_types: ModuleTypes, error: ConfigurationError) -> str:
    """Why a type refuses a planned module, with the parameters of the space that decided it."""
    rule = item.rule
    decided = _decided(rule, [item], module_types)
    if rule.size is not None and rule.size.parameter is not None:
        decided.append(("size", (rule.size.parameter,), str(item.size)))
    return f"{rule.name} at {item.part} of layer {item.layer} is refused: {error} {_blamed(decided, error)}"


def shared_refusal(modules: Sequence[PlannedModule], module_types: ModuleTypes, error: ConfigurationError) -> str:
    """Why planned modules cannot share, with the parameters of the space that decided it."""
    by_rule: dict[str, list[PlannedModule]] = {}
    for item in modules:
        if isinstance(module_types[item.rule.type], SharingType):
            by_rule.setdefault(item.rule.name, []).append(item)
    decided = [entry for items in by_rule.values() for entry in _decided(items[0].rule, items, module_types)]
    return f"{' and '.join(by_rule)}: {error} {_blamed(decided, error)}"


def _decided(rule: ModuleRule, items: Sequence[PlannedModule], module_types: ModuleTypes) -> list[_Decided]:
    """Options of a rule that the point decides, with the values that its modules have."""
    known, found = module_types[rule.type].options, []
    for name, option in rule.options:
        if option.is_searched:
            values = dict.fromkeys(show(dict(item.options).get(name, known[name].default)) for item in items)
            found.append((name, option.parameters, " and ".join(values)))
    return found


def _blamed(decided: Sequence[_Decided], error: ConfigurationError) -> str:
    """The parameters that an error is about, in words."""
    # The types name the options they object to.
    blamed = [entry for entry in decided if re.search(rf"\b{re.escape(entry[0])}\b", str(error))] or decided
    words = ", ".join(f"{' and '.join(names)} ({name} is {value})" for name, names, value in blamed)
    return f"Parameters that decide it: {words}." if words else "The space fixes it; change its options."


def _deciding(*rules: ModuleRule) -> str:
    """The parameters that decide whether, where and as what rules stand, in words."""
    names: dict[str, None] = {}
    for rule in rules:
        names |= dict.fromkeys(name for name, _ in (rule.condition.terms if rule.condition else ()))
        names |= dict.fromkeys([] if rule.parts.parameter is None else [rule.parts.parameter])
        names |= dict.fromkeys(name for _, option in rule.options if option.is_searched for name in option.parameters)
    return f"Parameters that decide it: {', '.join(names)}." if names else "The space fixes it; remove one of them."
