"""Binding vector parameters to a number of layers, and reading a point layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autopeft.configuration._configuration import OptionValue
from autopeft.configuration._parameter import Condition, Parameter, Params, same_value
from autopeft.configuration._scores import SiteScores
from autopeft.configuration._space import SearchSpace
from autopeft.exceptions import ConfigurationError


def n_entries(parameter: Parameter, n_layers: int) -> int:
    """How many dimensions a declared parameter has on a backbone of `n_layers` layers."""
    if parameter.layer_groups is not None:
        return min(parameter.layer_groups, n_layers)
    return n_layers if parameter.per_layer else 1


def entry_name(parameter: Parameter, layer: int, n_layers: int) -> str:
    """Name of the dimension that speaks for a layer; groups are runs of layers, as equal as possible."""
    if not parameter.is_vector:
        return parameter.name
    return f"{parameter.name}_{layer * n_entries(parameter, n_layers) // n_layers}"


def expand(space: SearchSpace, n_layers: int) -> tuple[Parameter, ...]:
    """All dimensions of a space on a backbone, parents before children."""
    declared = {item.name: item for item in space.parameters}
    dimensions: list[Parameter] = []
    for parameter in space.parameters:
        if not parameter.is_vector:
            dimensions.append(parameter)
            continue
        dimensions += [
            replace(
                parameter,
                name=f"{parameter.name}_{index}",
                condition=_condition_at(parameter.condition, declared, index),
                per_layer=False,
                layer_groups=None,
                vector=parameter.name,
            )
            for index in range(n_entries(parameter, n_layers))
        ]
    return tuple(dimensions)


def _condition_at(condition: Condition | None, declared: Mapping[str, Parameter], index: int) -> Condition | None:
    """The condition of entry `index` of a vector: vector parents are read at the same entry."""
    if condition is None:
        return None
    return Condition(
        terms=tuple(
            (f"{name}_{index}" if declared[name].is_vector else name, values) for name, values in condition.terms
        )
    )


def holds(condition: Condition | None, values: Params) -> bool:
    """Whether a condition holds in a dict that has active dimensions only."""
    return condition is None or _all_hold(condition.terms, values)


def _all_hold(terms: Iterable[tuple[str, tuple[OptionValue, ...]]], values: Params) -> bool:
    # Loops and no generators: it is asked of every dimension and every layer of every point.
    for name, choices in terms:
        if name not in values:
            return False
        value = values[name]
        for allowed in choices:
            if value == allowed and same_value(value, allowed):
                break
        else:
            return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A canonical point, read by declared name and layer.

    Args:
        declared: Declared parameters by name.
        values: Values of the active dimensions.
        n_layers: Layers of the backbone.
        known_scores: Scores of sites by source; None if there are none yet.
    """

    declared: Mapping[str, Parameter]
    values: Params
    n_layers: int
    known_scores: Mapping[str, SiteScores] | None = None

    def scores(self, source: str) -> SiteScores:
        """Scores of a source.

        Raises:
            ConfigurationError: If they are not known.
        """
        found = (self.known_scores or {}).get(source)
        if found is None:
            raise ConfigurationError(
                f"the point needs the scores {source!r} of the backbone's sites on a task, and they are not known. "
                "`autopeft search` computes them before its first trial; in Python, pass "
                f"scores={{{source!r}: autopeft.training.compute_scores(runner, {source!r}, seed=0)}} to BoundSpace."
            )
        return found

    def value(self, name: str, layer: int = 0) -> Any:
        """Value of a declared parameter at a layer; the parser made sure that it is active where it is asked for."""
        return self.values[entry_name(self.declared[name], layer, self.n_layers)]

    def layers_where(self, condition: Condition | None, layers: Sequence[int]) -> list[int]:
        """The layers at which a condition on declared parameters holds."""
        if condition is None:
            return list(layers)
        if not any(self.declared[name].is_vector for name, _ in condition.terms):
            return list(layers) if _all_hold(condition.terms, self.values) else []
        return [layer for layer in layers if self._holds(condition, layer)]

    def _holds(self, condition: Condition, layer: int) -> bool:
        at_layer = [
            (entry_name(self.declared[name], layer, self.n_layers), choices) for name, choices in condition.terms
        ]
        return _all_hold(at_layer, self.values)


def plain(value: Any) -> OptionValue:
    """A NumPy scalar as the Python value it stands for; everything else unchanged."""
    item = getattr(value, "item", None)
    result: OptionValue = item() if callable(item) else value
    return result
