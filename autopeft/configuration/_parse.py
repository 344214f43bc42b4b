"""From the file format of a search space to a `SearchSpace`, with every mistake reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Literal, cast

from autopeft.configuration._activity import Requirements, condition_requirements, parameter_requirements
from autopeft.configuration._configuration import PARTS
from autopeft.configuration._dynamics import DYNAMICS_TYPES
from autopeft.configuration._legal import illegal_rules
from autopeft.configuration._parameter import Parameter
from autopeft.configuration._parse_dynamics import parse_dynamics
from autopeft.configuration._parse_options import parse_options
from autopeft.configuration._parse_parameters import parse_condition, parse_parameters
from autopeft.configuration._parse_scores import parse_profile, parse_sites
from autopeft.configuration._profiles import PROFILES
from autopeft.configuration._reachable import always_refused
from autopeft.configuration._reader import Reader, describe, join
from autopeft.configuration._references import References
from autopeft.configuration._scores import SCORE_SOURCES
from autopeft.configuration._shapes import ModuleTypes
from autopeft.configuration._space import LayerRule, ModuleRule, OptionRule, PartsRule, SearchSpace, SizeRule
from autopeft.exceptions import SearchSpaceError

_TOP: Final = ("name", "description", "parameters", "modules", "layers", "learning_rate", "budget")
_TOP_OPTIONAL: Final = ("dynamics", "objectives")
_NOT_REFERRING: Final = ("name", "description", "objectives")
_MODULE_KEYS: Final = ("type", "when", "size", "profile", "sites", "options")
#: Wider than any layer; scaling to a budget looks at every size below.
_MAX_SIZE: Final = 65_536
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


def parse_search_space(
    data: Any, module_types: ModuleTypes | None = None, *, source: str = "definition"
) -> SearchSpace:
    """Build a search space from its definition.

    Args:
        data: A mapping in the file format, for example from `SearchSpace.to_dict`.
        module_types: `autopeft.modules.MODULES`; None takes module types and parts on trust.
        source: What the message calls the definition.

    Raises:
        SearchSpaceError: If anything is wrong; the message lists every mistake with its key.
    """
    space, problems = check_search_space(data, module_types)
    if space is None:
        raise SearchSpaceError(source, problems)
    return space


def check_search_space(data: Any, module_types: ModuleTypes | None) -> tuple[SearchSpace | None, list[str]]:
    """As `parse_search_space`, without raising.

    Returns:
        The space, None if there are mistakes; and the mistakes, each starting with its key.
    """
    reader = Reader()
    space = _Parser(reader, module_types).space(data)
    if space is not None and module_types is not None and not reader.problems:
        for rule, reason in illegal_rules(space, module_types):
            reader.problem(f"modules.{rule.name}", f"no point that has it is legal: {reason}")
    problems = list(dict.fromkeys(reader.problems))
    return (None if problems else space), problems


def _words(value: Any, *, is_condition: bool = False) -> Iterator[str]:
    """Every text in a definition that could refer to a parameter: values, and the keys of conditions."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(name, str) and is_condition:
                yield name
            yield from _words(item, is_condition=name == "when")


class _Parser:
    """One parse; sections refer to the parameters that were read before them."""

    def __init__(self, reader: Reader, module_types: ModuleTypes | None) -> None:
        self._reader = reader
        self._module_types = module_types
        self._parameters: dict[str, Parameter] = {}
        self._known = References(reader=reader, parameters={}, declared=())

    def space(self, data: Any) -> SearchSpace | None:
        reader = self._reader
        top = reader.mapping("", data, required=_TOP, optional=_TOP_OPTIONAL) if isinstance(data, dict) else {}
        if not isinstance(data, dict):
            reader.problem("(top level)", f"must be a mapping with {', '.join(_TOP)}, but got {describe(data)}.")
            return None
        name = reader.text("name", top["name"]) if "name" in top else None
        if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            reader.problem("name", f"must consist of lower-case letters, digits, - and _, but got {name!r}.")
        description = reader.text("description", top["description"]) if "description" in top else None
        if "parameters" in top:
            declared = set(top["parameters"]) if isinstance(top["parameters"], dict) else set()
            self._parameters = parse_parameters(reader, top["parameters"])
            self._known = References(reader=reader, parameters=self._parameters, declared=declared)
            for item in self._parameters.values():
                if item.name in PROFILES:
                    reader.problem(f"parameters.{item.name}", "has the name of a depth profile; choose another.")
        modules = self._modules(top["modules"]) if "modules" in top else ()
        layers = self._layers("layers", top["layers"], {}) if "layers" in top else None
        rate = self._learning_rate(top["learning_rate"]) if "learning_rate" in top else None
        budget = reader.one_of("budget", top["budget"], ("scale", "reject"), "rule") if "budget" in top else None
        dynamics = parse_dynamics(self._known, top["dynamics"], DYNAMICS_TYPES) if "dynamics" in top else None
        if "modules" in top and "layers" in top and "learning_rate" in top:
            mentioned = set(_words({name: item for name, item in top.items() if name not in _NOT_REFERRING}))
            for unused in sorted(self._parameters.keys() - mentioned):
                reader.problem(f"parameters.{unused}", "is used nowhere; remove it or refer to it.")
        if name is None or description is None or layers is None or rate is None or budget is None:
            return None
        return SearchSpace(
            name=name,
            description=" ".join(description.split()),
            parameters=tuple(self._parameters.values()),
            modules=modules,
            layers=layers,
            learning_rate=rate,
            budget=cast('Literal["scale", "reject"]', budget),
            dynamics=dynamics,
            objectives=reader.texts("objectives", top["objectives"]) if "objectives" in top else (),
        )

    def _modules(self, value: Any) -> tuple[ModuleRule, ...]:
        reader = self._reader
        entries = reader.entries("modules", value)
        if isinstance(value, dict) and not value:
            reader.problem("modules", "must name at least one module.")
        rules: list[ModuleRule] = []
        for name, item in entries.items():
            n_problems = len(reader.problems)
            rule = self._module(name, item)
            if rule is None:
                continue
            rules.append(rule)
            if self._module_types is not None and len(reader.problems) == n_problems:
                reason = always_refused(rule, self._parameters, self._module_types)
                if reason is not None:
                    reader.problem(f"modules.{name}", f"every one of its modules would be refused: {reason}")
        for index, rule in enumerate(rules):
            for other in rules[:index]:
                shared = sorted(rule.parts.all_parts & other.parts.all_parts)
                if rule.type == other.type and shared:
                    reader.problem(
                        f"modules.{rule.name}.parts",
                        f"a site holds one {rule.type}, but {other.name} can stand at {', '.join(shared)} as well.",
                    )
        return tuple(rules)

    def _module(self, name: str, value: Any) -> ModuleRule | None:
        reader, key = self._reader, f"modules.{name}"
        if not _NAME.fullmatch(name):
            reader.problem(key, "must consist of lower-case letters, digits and _.")
        data = reader.mapping(key, value, required=("parts",), optional=_MODULE_KEYS)
        if not isinstance(value, dict):
            return None
        type_name = data.get("type", name)
        type_key = join(key, "type") if "type" in data else key
        kind = None
        if self._module_types is not None:
            found = reader.one_of(type_key, type_name, self._module_types.keys(), "module type")
            kind = None if found is None else self._module_types[found]
        condition = None
        if "when" in data:
            condition = parse_condition(reader, join(key, "when"), data["when"], self._parameters, self._known.declared)
        context = condition_requirements(condition, self._parameters)
        size = self._size(join(key, "size"), data["size"], context) if "size" in data else None
        if kind is not None and kind.is_sized != ("size" in data):
            rule = "is required" if kind.is_sized else "must be left out"
            reader.problem(join(key, "size"), f"{rule}: {kind.name} {'has' if kind.is_sized else 'has no'} size.")
        parts = self._parts(join(key, "parts"), data["parts"], context) if "parts" in data else None
        if parts is not None and kind is not None:
            for part in sorted(parts.all_parts & set(PARTS) - kind.parts):
                allowed = ", ".join(item for item in PARTS if item in kind.parts)
                reader.problem(join(key, "parts"), f"{kind.name} cannot stand at {part}; it can at {allowed}.")
        profile, exponent = parse_profile(self._known, join(key, "profile"), data.get("profile", "flat"), context)
        sites = parse_sites(self._known, join(key, "sites"), data["sites"], context) if "sites" in data else None
        per_layer = size is not None and size.parameter is not None and self._is_vector(size.parameter)
        if profile != "flat" and ("size" not in data or per_layer):
            why = "it has a size of its own in each layer" if per_layer else "it has no size"
            reader.problem(join(key, "profile"), f"must be flat, because {why}.")
        if parts is not None and "embedding" in parts.all_parts:
            # Embeddings lie outside the layers that gates, profiles and scores speak about.
            if parts.all_parts != {"embedding"}:
                reader.problem(join(key, "parts"), "embedding is no part of a layer; give it a module of its own.")
            for word, is_there in (("profile", profile != "flat"), ("sites", sites is not None), ("size", per_layer)):
                if is_there:
                    reader.problem(join(key, word), "must not differ between layers: embedding is in none of them.")
        options: tuple[tuple[str, OptionRule], ...] = ()
        if "options" in data:
            known_options = None if kind is None else kind.options
            options = parse_options(self._known, join(key, "options"), data["options"], known_options, context)
        if parts is None or profile is None or not isinstance(type_name, str):
            return None
        return ModuleRule(
            name=name,
            type=type_name,
            parts=parts,
            condition=condition,
            size=size,
            profile=profile,
            options=options,
            exponent=exponent,
            sites=sites,
        )

    def _is_vector(self, name: str) -> bool:
        return name in self._parameters and self._parameters[name].is_vector

    def _size(self, key: str, value: Any, context: Requirements) -> SizeRule | None:
        reader = self._reader
        if isinstance(value, dict):
            data = reader.mapping(key, value, required=("hidden_size_halvings",), optional=())
            if "hidden_size_halvings" not in data:
                return None
            inner = join(key, "hidden_size_halvings")
            found = self._known.parameter(inner, data["hidden_size_halvings"], ("int",), context, vector=None)
            if found is not None and found.low is not None and found.low < 0:
                reader.problem(inner, f"parameter {found.name} must not be negative, but starts at {found.low:g}.")
            return None if found is None else SizeRule(parameter=found.name, is_halvings=True)
        if isinstance(value, str):
            found = self._known.parameter(key, value, ("int",), context, vector=None)
            if found is not None and found.low is not None and found.low < 1:
                reader.problem(key, f"sizes start at 1 (absent is a switch), but {value} starts at {found.low:g}.")
            if found is not None and found.high is not None and found.high > _MAX_SIZE:
                reader.problem(key, f"sizes end at {_MAX_SIZE:,}, but {value} ends at {found.high:g}.")
            return None if found is None else SizeRule(parameter=value)
        constant = reader.integer(key, value, low=1)
        if constant is not None and constant > _MAX_SIZE:
            reader.problem(key, f"sizes end at {_MAX_SIZE:,}, but got {constant}.")
        return None if constant is None else SizeRule(constant=constant)

    def _parts(self, key: str, value: Any, context: Requirements) -> PartsRule | None:
        reader = self._reader
        if isinstance(value, list):
            return PartsRule(lists=(("", self._part_list(key, value)),))
        if not isinstance(value, dict):
            reader.problem(key, f"must be a list of parts or a mapping with parameter, lists; got {describe(value)}.")
            return None
        data = reader.mapping(key, value, required=("parameter", "lists"), optional=())
        raw = reader.entries(join(key, "lists"), data["lists"]) if "lists" in data else {}
        lists = tuple((name, self._part_list(join(key, f"lists.{name}"), item)) for name, item in raw.items())
        if "parameter" not in data:
            return None
        chooser = self._known.parameter(
            join(key, "parameter"), data["parameter"], ("categorical",), context, vector=None
        )
        if chooser is None:
            return None
        self._known.same_names(join(key, "lists"), chooser, [name for name, _ in lists])
        return PartsRule(lists=lists, parameter=chooser.name)

    def _part_list(self, key: str, value: Any) -> tuple[str, ...]:
        names = self._reader.texts(key, value)
        known = [name for name in names if self._reader.one_of(key, name, PARTS, "part") is not None]
        return tuple(sorted(known, key=PARTS.index))

    def _layers(self, key: str, value: Any, context: Requirements) -> LayerRule | None:
        reader = self._reader
        if value == "all":
            return LayerRule()
        if not isinstance(value, dict):
            reader.problem(
                key,
                "must be all, or a mapping: top_share, top_score and score, bits, or parameter and rules; "
                f"got {describe(value)}.",
            )
            return None
        if "parameter" in value or "rules" in value:
            return self._layer_choice(key, value, context)
        kinds = ("top_share", "top_score", "bits")
        data = reader.mapping(key, value, required=(), optional=(*kinds, "score", "parameter", "rules"))
        if sum(kind in data for kind in kinds) != 1 or ("top_score" in data) != ("score" in data):
            reader.problem(
                key, "must have exactly one of top_share, top_score with score, bits, or parameter with rules."
            )
            return None
        if "bits" in data:
            bits = self._known.parameter(join(key, "bits"), data["bits"], ("bool",), context, vector=True)
            return None if bits is None else LayerRule(kind="bits", parameter=bits.name)
        kind: Literal["top_share", "top_score"] = "top_share" if "top_share" in data else "top_score"
        inner = join(key, kind)
        share = self._known.parameter(inner, data[kind], ("float",), context, vector=False)
        source = None
        if kind == "top_score":
            source = reader.one_of(join(key, "score"), data["score"], SCORE_SOURCES, "score")
        if share is None or (source is None and kind == "top_score"):
            return None
        if share.low is not None and share.high is not None and not (share.low > 0 and share.high <= 1):
            reader.problem(inner, f"parameter {share.name} must lie in (0, 1], but spans {share.low} to {share.high}.")
        return LayerRule(kind=kind, parameter=share.name, source=source)

    def _layer_choice(self, key: str, value: Any, context: Requirements) -> LayerRule | None:
        data = self._reader.mapping(key, value, required=("parameter", "rules"), optional=())
        if len(data) != 2:
            return None
        chooser = self._known.parameter(
            join(key, "parameter"), data["parameter"], ("categorical",), context, vector=False
        )
        rules: list[tuple[str, LayerRule]] = []
        raw = self._reader.entries(join(key, "rules"), data["rules"])
        for name, item in raw.items():
            inner: Requirements = dict(context)
            if chooser is not None:
                inner |= parameter_requirements(chooser, self._parameters) | {chooser.name: (name,)}
            rule = self._layers(join(key, f"rules.{name}"), item, inner)
            rules += [] if rule is None else [(name, rule)]
        if chooser is None:
            return None
        self._known.same_names(join(key, "rules"), chooser, list(raw))
        return LayerRule(kind="choice", parameter=chooser.name, rules=tuple(rules))

    def _learning_rate(self, value: Any) -> str | float | None:
        key = "learning_rate"
        if isinstance(value, str):
            found = self._known.parameter(key, value, ("float",), {}, vector=False)
            if found is not None and found.low is not None and found.low <= 0:
                self._reader.problem(key, f"must be positive, but parameter {value} starts at {found.low:g}.")
            return None if found is None else value
        number = self._reader.number(key, value)
        if number is not None and number <= 0:
            self._reader.problem(key, f"must be positive, but got {number:g}.")
        return number
