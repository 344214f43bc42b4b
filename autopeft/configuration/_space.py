"""The rules of a search space: which modules stand where, how large, on which layers, and with which dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from autopeft.configuration._configuration import OptionValue
from autopeft.configuration._parameter import Condition, Parameter, show
from autopeft.configuration._scores import (
    DEFAULT_EXPONENT,
    SCORE_SOURCES,
    NumberRule,
    SitesRule,
    score_source,
    sources_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRule:
    """Where a module's size comes from: a constant, a parameter, or ``floor(hidden_size / 2^k)`` of a parameter k.

    Args:
        constant: The size itself, >= 1; None if a parameter decides.
        parameter: Name of an int parameter; None for a constant.
        is_halvings: Whether the parameter is the k above. A size of 0 means that the module is absent.
    """

    constant: int | None = None
    parameter: str | None = None
    is_halvings: bool = False

    def to_dict(self) -> int | str | dict[str, str] | None:
        """Its entry in the file format."""
        if self.parameter is None:
            return self.constant
        return {"hidden_size_halvings": self.parameter} if self.is_halvings else self.parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionRule:
    """Where the value of an option comes from: a constant or a parameter, the same in all layers or with a profile.

    Args:
        constant: The value itself; None if a parameter decides.
        parameter: Name of a parameter, with one value or one per layer; None for a constant.
        profile: A profile's name, or the categorical parameter that picks one, for whole numbers: the value is then
            the mean over the layers that carry the module, as with sizes.
    """

    constant: OptionValue | None = None
    parameter: str | None = None
    profile: str = "flat"

    @property
    def is_searched(self) -> bool:
        """Whether it can differ between points or layers."""
        return self.parameter is not None or self.profile != "flat"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, or of a profile, that it depends on."""
        named = () if self.parameter is None else (self.parameter,)
        return named if self.profile == "flat" else (*named, self.profile)

    def to_dict(self) -> OptionValue | dict[str, OptionValue] | None:
        """Its entry in the file format."""
        if not self.is_searched:
            return self.constant
        data: dict[str, OptionValue] = {}
        if self.constant is not None:
            data["value"] = self.constant
        if self.parameter is not None:
            data["parameter"] = self.parameter
        return data if self.profile == "flat" else {**data, "profile": self.profile}

    def describe(self) -> str:
        """The rule in words."""
        value = show(self.constant) if self.parameter is None else self.parameter
        return value if self.profile == "flat" else f"{value} (profile {self.profile})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRule:
    """At which parts of a layer a module stands.

    Args:
        lists: Named lists of parts; a single list without a name has the key ``""``.
        parameter: The categorical parameter that picks a list; None if there is one.
    """

    lists: tuple[tuple[str, tuple[str, ...]], ...]
    parameter: str | None = None

    @property
    def all_parts(self) -> frozenset[str]:
        """Every part that any list names."""
        return frozenset(part for _, parts in self.lists for part in parts)

    @property
    def is_embedding(self) -> bool:
        """Whether the module stands outside the layers, whichever of them are tuned."""
        return self.all_parts == {"embedding"}

    def to_dict(self) -> list[str] | dict[str, Any]:
        """Its entry in the file format."""
        if self.parameter is None:
            return list(self.lists[0][1])
        return {"parameter": self.parameter, "lists": {name: list(parts) for name, parts in self.lists}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRule:
    """How a module family enters a configuration.

    Args:
        name: Key in the file; the module type unless ``type`` says otherwise.
        type: Key of `autopeft.modules.MODULES`.
        condition: When it is there; None for always.
        size: Its size; None for types without one.
        parts: Where in a layer it stands.
        profile: The name of a profile or ``score:`` and a source's, or the categorical parameter that picks one.
        options: Where the values of its options come from, sorted by name.
        exponent: Of the scores, where the profile follows some; a number or a float parameter's name.
        sites: Which of its sites carry it; None for all.
    """

    name: str
    type: str
    parts: PartsRule
    condition: Condition | None = None
    size: SizeRule | None = None
    profile: str = "flat"
    options: tuple[tuple[str, OptionRule], ...] = ()
    exponent: NumberRule = DEFAULT_EXPONENT
    sites: SitesRule | None = None

    @property
    def fixed_options(self) -> tuple[tuple[str, OptionValue], ...]:
        """The options that no point can change, sorted by name."""
        return tuple(
            (name, rule.constant) for name, rule in self.options if not rule.is_searched and rule.constant is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Its entry in the file format."""
        profile: str | dict[str, Any] = self.profile
        if self.exponent != DEFAULT_EXPONENT:
            source = score_source(self.profile)
            named = {"parameter": self.profile} if source is None else {"score": source}
            profile = {**named, "exponent": self.exponent}
        data: dict[str, Any] = {"type": self.type, "parts": self.parts.to_dict(), "profile": profile}
        if self.sites is not None:
            data["sites"] = self.sites.to_dict()
        if self.condition is not None:
            data["when"] = self.condition.to_dict()
        if self.size is not None:
            data["size"] = self.size.to_dict()
        if self.options:
            data["options"] = {name: rule.to_dict() for name, rule in self.options}
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRule:
    """Which layers carry modules.

    Args:
        kind: ``all``; ``top_share``: the top ceil(share * layers); ``top_score``: as many, those with the highest
            scores; ``bits``: a bool per layer or group of layers; ``choice``: a categorical parameter picks one of the
            named rules.
        parameter: The parameter that decides; None for ``all``.
        rules: Named rules of a ``choice``.
        source: Of the scores of ``top_score``.
    """

    kind: Literal["all", "top_share", "top_score", "bits", "choice"] = "all"
    parameter: str | None = None
    rules: tuple[tuple[str, LayerRule], ...] = ()
    source: str | None = None

    @property
    def score_sources(self) -> tuple[str, ...]:
        """Sources of scores that it, or a rule it may pick, follows."""
        own = () if self.source is None else (self.source,)
        return (*own, *(name for _, rule in self.rules for name in rule.score_sources))

    def to_dict(self) -> str | dict[str, Any]:
        """Its entry in the file format."""
        if self.kind == "all":
            return "all"
        if self.kind == "choice":
            return {"parameter": self.parameter, "rules": {name: rule.to_dict() for name, rule in self.rules}}
        return {self.kind: self.parameter} | ({} if self.source is None else {"score": self.source})


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicsChoice:
    """A dynamics with the rules for its options.

    Args:
        type: Key of `DYNAMICS_TYPES`.
        options: Where the values of its options come from, sorted by name.
    """

    type: str
    options: tuple[tuple[str, OptionRule], ...] = ()

    @property
    def option_entries(self) -> dict[str, Any]:
        """The options' entries in the file format."""
        return {name: rule.to_dict() for name, rule in self.options}


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicsRule:
    """Which dynamics a configuration trains with.

    Args:
        choices: Named choices, None for static training; a single fixed one has the key ``""``.
        parameter: The categorical parameter that picks one; None if there is one.
    """

    choices: tuple[tuple[str, DynamicsChoice | None], ...]
    parameter: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Its entry in the file format."""
        if self.parameter is None:
            [(_, choice)] = self.choices
            return {} if choice is None else {"type": choice.type, "options": choice.option_entries}
        entries = {name: None if choice is None else choice.option_entries for name, choice in self.choices}
        return {"parameter": self.parameter, "rules": entries}

    def describe(self) -> str:
        """The rule in words."""
        words = []
        for name, choice in self.choices:
            options = () if choice is None else choice.options
            inner = ", ".join(f"{option} {rule.describe()}" for option, rule in options)
            words.append((name or (choice.type if choice else "")) + (f" ({inner})" if inner else ""))
        return words[0] if self.parameter is None else f"{self.parameter}: {'; '.join(words)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """A named search space, not yet bound to a backbone; read one with `load_search_space`.

    Args:
        name: Its name.
        description: One or two sentences.
        parameters: What is searched, parents before children.
        modules: The module families.
        layers: Which layers carry them.
        learning_rate: A parameter's name or a fixed rate.
        budget: What happens to a point above the budget: ``scale`` shrinks all sizes by one common factor,
            ``reject`` makes the point infeasible.
        dynamics: What changes during training; None for nothing.
        objectives: What a study over it optimizes unless the user says otherwise; empty leaves it to the search.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    modules: tuple[ModuleRule, ...]
    layers: LayerRule
    learning_rate: str | float
    budget: Literal["scale", "reject"]
    dynamics: DynamicsRule | None = None
    objectives: tuple[str, ...] = ()

    @property
    def score_sources(self) -> tuple[str, ...]:
        """Sources of scores that some of its points need, sorted: what must be computed before a search."""
        choices = {item.name: item.choices for item in self.parameters}
        found = set(self.layers.score_sources)
        for rule in self.modules:
            found |= set(sources_of([rule.profile, *choices.get(rule.profile, ())]))
            found |= set() if rule.sites is None else {rule.sites.source}
        return tuple(sorted(found))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready definition in the file format; `parse_search_space` is its inverse."""
        data: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "parameters": {item.name: item.to_dict() for item in self.parameters},
            "modules": {item.name: item.to_dict() for item in self.modules},
            "layers": self.layers.to_dict(),
            "learning_rate": self.learning_rate,
            "budget": self.budget,
        }
        if self.dynamics is not None:
            data["dynamics"] = self.dynamics.to_dict()
        if self.objectives:
            data["objectives"] = list(self.objectives)
        return data

    def describe(self) -> str:
        """The space in words, one line per parameter and module."""
        lines = [f"{self.name}: {self.description}", "", "Parameters"]
        width = max((len(item.name) for item in self.parameters), default=0)
        for item in self.parameters:
            when = f"  (when {item.condition.describe()})" if item.condition else ""
            lines.append(f"  {item.name:<{width}}  {item.type}: {item.domain}{when}")
        lines += ["", "Modules"]
        for rule in self.modules:
            when = f" when {rule.condition.describe()}" if rule.condition else ""
            size = "" if rule.size is None else f", size {_describe_size(rule.size)}"
            options = "".join(f", {name} {option.describe()}" for name, option in rule.options)
            profile = f", profile {rule.profile}" + ("" if rule.exponent == DEFAULT_EXPONENT else f"^{rule.exponent}")
            sites = "" if rule.sites is None else f", on {rule.sites.describe()}"
            lines.append(f"  {rule.type} at {_describe_parts(rule.parts)}{size}{profile}{sites}{options}{when}")
        lines += ["", f"Learning rate: {self.learning_rate}", f"Points above the budget: {self.budget}"]
        lines += [] if self.dynamics is None else [f"Dynamics: {self.dynamics.describe()}"]
        lines += [f"Objectives: {', '.join(self.objectives)}"] if self.objectives else []
        lines += [f"Scores: {name}: {SCORE_SOURCES[name]}" for name in self.score_sources]
        return "\n".join(lines)


def _describe_size(rule: SizeRule) -> str:
    if rule.parameter is None:
        return str(rule.constant)
    return f"floor(hidden_size / 2^{rule.parameter})" if rule.is_halvings else rule.parameter


def _describe_parts(rule: PartsRule) -> str:
    if rule.parameter is None:
        return ",".join(rule.lists[0][1])
    return f"{rule.parameter} (" + "; ".join(f"{name}: {','.join(parts)}" for name, parts in rule.lists) + ")"
