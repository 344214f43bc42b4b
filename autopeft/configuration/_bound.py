"""A search space bound to a backbone and a budget: what samplers draw from and the search compiles with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autopeft.configuration._compile import PlannedModule, canonical_options, option_columns, plan
from autopeft.configuration._configuration import Configuration, DynamicsSpec, OptionValue, Placement
from autopeft.configuration._draw import Drawer
from autopeft.configuration._dynamics import DYNAMICS_TYPES
from autopeft.configuration._expand import Point, expand, holds, plain
from autopeft.configuration._parameter import Parameter, Params
from autopeft.configuration._place import Placer
from autopeft.configuration._reachable import reachable_types
from autopeft.configuration._scores import SiteScores, uniform_scores
from autopeft.configuration._shapes import BackboneShapes, ModuleTypes, placement_counts, shared_beside
from autopeft.configuration._shrink import at_smallest, shrink
from autopeft.configuration._smallest import smallest_point
from autopeft.configuration._space import ModuleRule, SearchSpace
from autopeft.exceptions import BudgetError, ConfigurationError, InfeasibleError

#: Draws before `sample` falls back to the smallest point.
_MAX_DRAWS = 2_000
#: Compiled points kept: who suggests a point, counts and stores it, asks for it several times.
_MAX_COMPILED = 10_000

#: Parameters of each placement, and those that they have in common.
_Counted = tuple[tuple[int, ...], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSpace:
    """A search space on a backbone, under a budget.

    A point is a flat dict of values by dimension name. Only active dimensions matter: two points that differ in
    inactive ones, or that expand to the same modules, compile to the same configuration.

    Args:
        space: What can be searched.
        shapes: The backbone's shapes.
        module_types: `autopeft.modules.MODULES`.
        budget: Cap on trainable PEFT parameters, task head excluded; None for no cap.
        scores: Scores of sites by source, where the space follows some (see `SearchSpace.score_sources`); None if there
            are none yet: then points that need them cannot be compiled.
        parameters: The dimensions, vectors expanded over the layers, parents before children. Derived.
        type_names: Every module type that its configurations can have. Derived.
    """

    space: SearchSpace
    shapes: BackboneShapes
    module_types: ModuleTypes = field(repr=False)
    budget: int | None = None
    scores: Mapping[str, SiteScores] | None = field(default=None, repr=False)
    parameters: tuple[Parameter, ...] = field(init=False, repr=False, compare=False)
    type_names: frozenset[str] = field(init=False, repr=False, compare=False)
    _by_name: dict[str, Parameter] = field(init=False, repr=False, compare=False)
    _declared: dict[str, Parameter] = field(init=False, repr=False, compare=False)
    _drawer: Drawer = field(init=False, repr=False, compare=False)
    _placer: Placer = field(init=False, repr=False, compare=False)
    _canonical_space: SearchSpace = field(init=False, repr=False, compare=False)
    _compiled: dict[tuple[Any, ...], Configuration | str] = field(init=False, repr=False, compare=False)
    _counted: dict[str, _Counted] = field(init=False, repr=False, compare=False)
    _refused: list[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parameters = expand(self.space, self.shapes.n_layers)
        declared = {item.name: item for item in self.space.parameters}
        rules = tuple(canonical_options(rule, self.module_types) for rule in self.space.modules)
        derived = {
            "parameters": parameters,
            "type_names": reachable_types(rules, declared, self.module_types),
            "_by_name": {item.name: item for item in parameters},
            "_declared": declared,
            "_drawer": Drawer.make(self.space, parameters),
            "_placer": Placer(shapes=self.shapes, module_types=self.module_types),
            "_compiled": {},
            "_counted": {},
            "_refused": [],
            "_canonical_space": replace(self.space, modules=rules),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def active(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of the dimensions that matter at a point, in the order of `parameters`."""
        seen: dict[str, Any] = {}
        names = []
        for item in self.parameters:
            if holds(item.condition, seen):
                names.append(item.name)
                if item.name in params:
                    seen[item.name] = plain(params[item.name])
        return tuple(names)

    def canonical(self, params: Mapping[str, Any]) -> dict[str, OptionValue]:
        """The point with inactive dimensions dropped and values in their own Python types.

        Raises:
            ConfigurationError: If a name is unknown, or an active value is missing or outside its domain.
        """
        problems = [f"unknown parameter {name!r}" for name in params if name not in self._by_name]
        point: dict[str, OptionValue] = {}
        for item in self.parameters:
            if not holds(item.condition, point):
                continue
            value = plain(params.get(item.name))
            if item.contains(value):
                point[item.name] = _typed(item, value)
            elif item.name in params:
                problems.append(f"{item.name} must be {item.domain}, but got {value!r}")
            else:
                problems.append(f"{item.name} is missing")
        if problems:
            raise ConfigurationError(f"not a point of search space {self.space.name}: {'; '.join(problems)}.")
        return point

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether every active dimension has a value of its domain and no name is unknown; feasible or not."""
        try:
            self.canonical(params)
        except ConfigurationError:
            return False
        return True

    def draw(self, rng: np.random.Generator) -> dict[str, OptionValue]:
        """One random point, feasible or not; see `sample` for the distribution."""
        return self.canonical(self._drawer.draw(rng))

    def sample(self, rng: np.random.Generator) -> dict[str, OptionValue]:
        """One random feasible point, active dimensions only.

        Numbers are uniform on their scale. Bits that gate layers are drawn by first drawing how many are set,
        uniformly: independent coin flips would concentrate at half the layers. Switches of module families are drawn
        by first drawing how many are on, k with probability proportional to 1 / k: few families share a budget better.

        Args:
            rng: The only source of randomness.

        Returns:
            A canonical point that `compile` accepts.

        Raises:
            BudgetError: If no point keeps the budget.
            InfeasibleError: If the space has no configuration on this backbone at all.
        """
        for _ in range(_MAX_DRAWS):
            params = self.draw(rng)
            if self.is_feasible(params):
                return params
        # Next to the smallest configuration nearly every draw is too large.
        self.check_budget()
        rate = self.space.learning_rate
        drawn = self._drawer.draw(rng)
        return self.canonical({**self._smallest_point(), **({rate: drawn[rate]} if isinstance(rate, str) else {})})

    def with_scores(self, scores: Mapping[str, SiteScores]) -> BoundSpace:
        """The same space with other scores of sites."""
        return replace(self, scores=scores)

    def compile(self, params: Mapping[str, Any]) -> Configuration:
        """Expand a point to its canonical configuration, within the budget.

        Raises:
            ConfigurationError: If `params` is no point of the space, or needs scores that are not known.
            InfeasibleError: If nothing would be tuned, or the budget cannot be kept.
        """
        result = self._compile(self.canonical(params))
        if isinstance(result, str):
            raise InfeasibleError(result)
        return result

    def is_feasible(self, params: Mapping[str, Any]) -> bool:
        """Whether `compile` would accept a point of the space."""
        return not isinstance(self._compile(self.canonical(params)), str)

    def parameter_count(self, configuration: Configuration) -> int:
        """Trainable parameters of a configuration on this backbone, task head excluded: exact."""
        each, shared = self._count(configuration)
        return sum(each) + shared

    def placement_counts(self, configuration: Configuration) -> tuple[int, ...]:
        """Trainable parameters of each placement alone, in the configuration's order."""
        return self._count(configuration)[0]

    def _count(self, configuration: Configuration) -> _Counted:
        found = self._counted.get(configuration.fingerprint)
        if found is None:
            each = placement_counts(configuration, self.shapes, self.module_types)
            found = self._remember(configuration, each)
        return found

    def _remember(self, configuration: Configuration, each: Sequence[int]) -> _Counted:
        if len(self._counted) >= _MAX_COMPILED:
            self._counted.clear()
        found = tuple(each), shared_beside(each, configuration, self.module_types)
        self._counted[configuration.fingerprint] = found
        return found

    def smallest(self) -> Configuration:
        """A configuration of the space with the fewest parameters, whatever the budget.

        Scores that are not known yet are taken as equal.

        Raises:
            InfeasibleError: If no point of the space has a site on this backbone.
        """
        unknown = set(self.space.score_sources) - (self.scores or {}).keys()
        if unknown:
            return self.with_scores({**(self.scores or {}), **uniform_scores(unknown, self.shapes)}).smallest()
        values = self.canonical(self._smallest_point())
        return self._assemble(self._least_modules(values), values)

    def check_budget(self) -> None:
        """Refuse a budget that no configuration keeps.

        Raises:
            BudgetError: If the smallest configuration is larger; the message says which it is.
            InfeasibleError: If the space has no configuration on this backbone at all.
        """
        smallest = self.smallest()
        least = self.parameter_count(smallest)
        if self.budget is not None and least > self.budget:
            words = smallest.describe().rpartition(", lr")[0]
            raise BudgetError(
                f"the budget of {self.budget:,} parameters is smaller than the smallest configuration of search space "
                f"{self.space.name} on this backbone: {words} needs {least:,} parameters; use --budget {least} or more."
            )

    def rules_of(self, params: Mapping[str, Any]) -> set[str]:
        """Names of the module families that stand somewhere at a point."""
        return {item.rule.name for item in self._plan(self.canonical(params))}

    def why_never(self, rule: ModuleRule) -> str | None:
        """Why no legal point has a module family; None if one has, or if the backbone has no site for it."""
        self._refused.clear()
        found = smallest_point(self.space, self.parameters, self.shapes, self._least_cost, rules=[rule])
        return None if found is not None or not self._refused else self._refused[-1]

    def _smallest_point(self) -> dict[str, OptionValue]:
        found = smallest_point(self.space, self.parameters, self.shapes, self._least_cost)
        if found is None:
            refused = self._refused
            raise InfeasibleError(
                f"search space {self.space.name} has no module with a site on a {self.shapes.architecture} backbone."
                if not refused
                else f"search space {self.space.name} has no legal point on a {self.shapes.architecture} backbone: "
                f"{refused[-1]}"
            )
        return found

    def _compile(self, point: dict[str, OptionValue]) -> Configuration | str:
        """The configuration of a canonical point, or why there is none."""
        # A third of the size of the tuple of its items.
        key = tuple(point), tuple(point.values())
        found = self._compiled.get(key)
        if found is None:
            if len(self._compiled) >= _MAX_COMPILED:
                self._compiled.clear()
            try:
                found = self._build(point)
            except InfeasibleError as error:
                found = str(error)
            self._compiled[key] = found
        return found

    def _plan(self, values: Params) -> list[PlannedModule]:
        """The modules of a canonical point that have a site on this backbone, the budget not yet applied."""
        point = Point(declared=self._declared, values=values, n_layers=self.shapes.n_layers, known_scores=self.scores)
        planned = plan(self._canonical_space, self.shapes, self.module_types, point)
        return [item for item in planned if self._placer.count(item) > 0]

    def _build(self, values: Params) -> Configuration:
        modules = self._plan(values)
        if not modules:
            raise InfeasibleError("the point tunes nothing: no module is switched on at a site of this backbone.")
        shared = self._placer.shared_count(modules)
        if self.budget is not None:
            if self.space.budget == "scale":
                modules = shrink(modules, self.budget, self._placer.counts, shared=shared)
            elif (total := shared + sum(map(self._placer.count, modules))) > self.budget:
                raise InfeasibleError(f"the point needs {total:,} parameters, but the budget is {self.budget:,}.")
        return self._assemble(modules, values)

    def _assemble(self, modules: list[PlannedModule], values: Params) -> Configuration:
        placed = self._placer.placed(modules)
        placements = tuple(item for item, _ in placed)
        dynamics = self._dynamics(values, placements)
        configuration = Configuration(
            placements=placements, learning_rate=self._learning_rate(values), dynamics=dynamics
        )
        # Known already here; whoever compiles a point asks for it next.
        self._remember(configuration, [count for _, count in placed])
        return configuration

    def _dynamics(self, values: Params, placements: Sequence[Placement]) -> DynamicsSpec | None:
        """The dynamics of a canonical point; None where they would never freeze anything."""
        rule = self.space.dynamics
        if rule is None:
            return None
        choice = dict(rule.choices)["" if rule.parameter is None else str(values[rule.parameter])]
        if choice is None:
            return None
        kind = DYNAMICS_TYPES[choice.type]
        point = Point(declared=self._declared, values=values, n_layers=self.shapes.n_layers)
        spec = DynamicsSpec(type=choice.type, options=option_columns(choice.options, kind.options, [0], point)[0])
        return None if kind.is_static(spec, [(item.site, item.module) for item in placements]) else spec

    def _learning_rate(self, values: Params) -> float:
        rate = self.space.learning_rate
        chosen = values[rate] if isinstance(rate, str) else rate
        # Three digits: two rates closer than that are the same experiment.
        return float(f"{float(chosen):.3g}")

    def _least_modules(self, values: Params) -> list[PlannedModule]:
        """A point's modules, as small as the budget rule could make them."""
        modules = self._plan(values)
        return modules if self.space.budget == "reject" else at_smallest(modules, self._placer.counts)

    def _least_cost(self, params: dict[str, OptionValue]) -> int | None:
        try:
            modules = self._least_modules(self.canonical(params))
            self._placer.placed(modules)
            shared = self._placer.shared_count(modules)
        except InfeasibleError as error:
            self._refused[:] = [str(error)]
            return None
        return shared + sum(map(self._placer.count, modules)) if modules else None


def _typed(parameter: Parameter, value: OptionValue) -> OptionValue:
    if parameter.type == "int":
        return int(value)
    if parameter.type == "float":
        return float(value)
    return value
