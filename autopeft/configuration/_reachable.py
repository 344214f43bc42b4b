"""What the modules of a rule can be, whatever the backbone: which types they become, whether they are ever accepted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from autopeft.configuration._configuration import PARTS, ModuleSpec, OptionValue, Site
from autopeft.configuration._option import rounded_option, typed_option
from autopeft.configuration._parameter import Parameter
from autopeft.configuration._place import canonical_spec, placements
from autopeft.configuration._shapes import (
    BackboneShapes,
    CanonicalType,
    ExpandingType,
    LayerShape,
    LinearShape,
    ModuleTypes,
    NormShape,
)
from autopeft.configuration._space import ModuleRule
from autopeft.exceptions import ConfigurationError

#: Ranges with more values than this are represented by their ends.
_MAX_VALUES: Final = 16
#: Combinations of size and option values looked at.
_MAX_COMBINATIONS: Final = 20_000


def reachable_types(
    rules: Sequence[ModuleRule], declared: Mapping[str, Parameter], module_types: ModuleTypes
) -> frozenset[str]:
    """Every module type that the rules' modules can become: their own, and what canonical forms turn them into.

    Canonical forms are asked at the ends of large ranges only.
    """
    found = {rule.type for rule in rules}
    for rule in rules:
        if isinstance(module_types[rule.type], CanonicalType | ExpandingType):
            for spec in _specs(rule, declared, module_types):
                found |= _types(spec, rule, module_types)
    return frozenset(found)


def _types(spec: ModuleSpec, rule: ModuleRule, module_types: ModuleTypes) -> set[str]:
    canonical = canonical_spec(spec, module_types)
    kind = module_types[canonical.type]
    found = {canonical.type}
    if isinstance(kind, ExpandingType):
        for part in rule.parts.all_parts:
            found |= {item.type for _, item in kind.expand(canonical, _site(part)) or ()}
    return found


def _site(part: str) -> Site:
    return Site(layer=None if part == "embedding" else 0, part=part)


def always_refused(rule: ModuleRule, declared: Mapping[str, Parameter], module_types: ModuleTypes) -> str | None:
    """Why a rule's modules are refused by their type, whatever the point and the backbone; None if some are accepted.

    What is tried are backbones of very different widths: what all of them refuse is not for a lack of size.
    """
    reason: str | None = None
    for spec, part in itertools.product(_specs(rule, declared, module_types), sorted(rule.parts.all_parts)):
        for shapes in SAMPLE_BACKBONES:
            try:
                placements(spec, _site(part), module_types, shapes)
            except ConfigurationError as error:
                reason = reason or str(error)
            else:
                return None
    return reason


def _specs(rule: ModuleRule, declared: Mapping[str, Parameter], module_types: ModuleTypes) -> Iterator[ModuleSpec]:
    known = module_types[rule.type].options
    names = [name for name, _ in rule.options]
    columns: list[tuple[OptionValue, ...]] = []
    for name, option in rule.options:
        fixed = () if option.constant is None else (option.constant,)
        values = fixed if option.parameter is None else _ends(declared[option.parameter])
        if option.profile != "flat":
            values = (1, *(value for value in values if value != 1))
        columns.append(tuple(typed_option(known[name], value) for value in values))
    combinations = itertools.product(_sizes(rule, declared), itertools.product(*columns))
    for size, chosen in itertools.islice(combinations, _MAX_COMBINATIONS):
        yield ModuleSpec(type=rule.type, size=size, options=tuple(zip(names, chosen, strict=True)))


def _sizes(rule: ModuleRule, declared: Mapping[str, Parameter]) -> tuple[int | None, ...]:
    if rule.size is None:
        return (None,)
    if rule.size.constant is not None and rule.profile == "flat":
        return (rule.size.constant,)
    # Profiles, halvings of the hidden size and budgets make other sizes of the ends.
    ends = () if rule.size.parameter is None or rule.size.is_halvings else _ends(declared[rule.size.parameter])
    return tuple(dict.fromkeys((*(int(end) for end in ends), 8, 64, 1)))


def _ends(parameter: Parameter) -> tuple[OptionValue, ...]:
    values = parameter.values
    if values is None:
        return tuple(rounded_option(float(end)) for end in (parameter.low, parameter.high) if end is not None)
    return values if len(values) <= _MAX_VALUES else (values[0], values[-1])


def _backbone(hidden: int, ffn: int, n_heads: int) -> BackboneShapes:
    """One layer with every part there is."""
    parts = [part for part in PARTS if part not in ("attention", "ffn", "norm", "bias", "embedding")]
    widths = {"up": (hidden, ffn), "gate": (hidden, ffn), "down": (ffn, hidden)}
    linears = {
        part: LinearShape(in_features=n_in, out_features=n_out, has_bias=True)
        for part in parts
        for n_in, n_out in [widths.get(part, (hidden, hidden))]
    }
    norm = NormShape(features=hidden, has_bias=True)
    layer = LayerShape(linears=linears, norms=(norm, norm), n_kv_heads=n_heads, head_size=hidden // n_heads)
    return BackboneShapes(
        architecture="any", hidden_size=hidden, layers=(layer,), embedding_parameters=hidden, parameters=10**9
    )


#: Those of all-MiniLM-L6-v2, BERT and Llama, and one whose widths have many divisors.
SAMPLE_BACKBONES: Final = (
    _backbone(384, 1536, 12),
    _backbone(768, 3072, 12),
    _backbone(4096, 11008, 32),
    _backbone(5040, 20160, 30),
)
