"""The point of a space with the fewest parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from autopeft.configuration._configuration import OptionValue
from autopeft.configuration._expand import entry_name, n_entries
from autopeft.configuration._parameter import Condition, Parameter, same_value
from autopeft.configuration._shapes import BackboneShapes
from autopeft.configuration._space import LayerRule, ModuleRule, SearchSpace

Point = dict[str, OptionValue]
#: Parameters of a point, sizes as small as the budget rule could make them; None if it tunes nothing.
Cost = Callable[[Point], int | None]

#: Ranges with more values than this are tried at their ends only: costs grow with sizes.
_MAX_VALUES = 64
#: Values tried of a float: a type may refuse an option near the cheap end of its range.
_N_FLOATS = 17


def smallest_point(
    space: SearchSpace,
    dimensions: Sequence[Parameter],
    shapes: BackboneShapes,
    cost: Cost,
    *,
    rules: Sequence[ModuleRule] | None = None,
) -> Point | None:
    """Find a cheapest point: one descent per module family, layer rule and kind of layer.

    Each descent keeps its family switched on, starts with as little else as possible, and changes one dimension at a
    time while that saves parameters. The cheapest configuration has a single family, so that its descent finds it.

    Args:
        space: The space.
        dimensions: Its dimensions on the backbone.
        shapes: The backbone.
        cost: What is minimised.
        rules: Module families of which one shall be switched on; None for all.

    Returns:
        A point with a value for every dimension; None if no start tunes anything.
    """
    best: tuple[int, Point] | None = None
    for rule in space.modules if rules is None else rules:
        for start, pins in _starts(space, rule, dimensions, shapes):
            found = _descend(start, pins, dimensions, cost)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
    return None if best is None else best[1]


def _starts(
    space: SearchSpace, rule: ModuleRule, dimensions: Sequence[Parameter], shapes: BackboneShapes
) -> Iterator[tuple[Point, dict[str, tuple[OptionValue, ...]]]]:
    """Points with one family on, and the values that the dimensions keeping it on may have."""
    declared = {item.name: item for item in space.parameters}
    for choices, leaf in _leaves(space.layers):
        vectors = [item for item in space.parameters if item.is_vector]
        for layer in _representatives(vectors, shapes) if vectors else [0]:
            pins: dict[str, tuple[OptionValue, ...]] = {}
            _pin(rule.condition, declared, layer, shapes.n_layers, pins)
            for name, value in choices:
                pins[name] = (value,)
                _pin(declared[name].condition, declared, layer, shapes.n_layers, pins)
            start = {item.name: _first(item) for item in dimensions}
            if leaf.kind == "bits" and leaf.parameter is not None:
                start[entry_name(declared[leaf.parameter], layer, shapes.n_layers)] = True
            start |= {name: values[0] for name, values in pins.items()}
            yield start, pins


def _leaves(rule: LayerRule) -> Iterator[tuple[tuple[tuple[str, OptionValue], ...], LayerRule]]:
    """The simple layer rules, with the choices that lead to each."""
    if rule.kind != "choice" or rule.parameter is None:
        yield (), rule
    for name, child in rule.rules:
        for choices, leaf in _leaves(child):
            yield ((str(rule.parameter), name), *choices), leaf


def _representatives(vectors: Sequence[Parameter], shapes: BackboneShapes) -> list[int]:
    """One layer of each kind: layers of one shape, in groups of the same make-up, cost the same."""
    distinct: list[object] = []
    kinds: list[int] = []
    for shape in shapes.layers:
        if shape not in distinct:
            distinct.append(shape)
        kinds.append(distinct.index(shape))
    n_layers = shapes.n_layers
    groups = [[layer * n_entries(vector, n_layers) // n_layers for layer in range(n_layers)] for vector in vectors]
    seen: dict[tuple[object, ...], int] = {}
    for layer in range(n_layers):
        signature = tuple(
            tuple(sorted(kind for kind, other in zip(kinds, group, strict=True) if other == group[layer]))
            for group in groups
        )
        seen.setdefault((kinds[layer], *signature), layer)
    return list(seen.values())


def _pin(
    condition: Condition | None,
    declared: Mapping[str, Parameter],
    layer: int,
    n_layers: int,
    pins: dict[str, tuple[OptionValue, ...]],
) -> None:
    """Collect what a condition, and the conditions of its parents, demand at a layer."""
    for name, values in () if condition is None else condition.terms:
        dimension = entry_name(declared[name], layer, n_layers)
        pins[dimension] = tuple(
            value for value in values if any(same_value(value, other) for other in pins.get(dimension, values))
        )
        _pin(declared[name].condition, declared, layer, n_layers, pins)


def _first(parameter: Parameter) -> OptionValue:
    return parameter.low if parameter.type == "float" and parameter.low is not None else _candidates(parameter)[0]


def _candidates(parameter: Parameter) -> tuple[OptionValue, ...]:
    low, high = parameter.low, parameter.high
    if low is None or high is None:
        return parameter.values or ()
    if parameter.type == "float":
        shares = [i / (_N_FLOATS - 1) for i in range(1, _N_FLOATS - 1)]
        between = [low * (high / low) ** share if parameter.log else low + (high - low) * share for share in shares]
        return (low, *between, high)
    return (int(low), int(high)) if high - low > _MAX_VALUES else parameter.values or ()


def _descend(
    point: Point, pins: Mapping[str, tuple[OptionValue, ...]], dimensions: Sequence[Parameter], cost: Cost
) -> tuple[int, Point] | None:
    """Change one dimension at a time until nothing gets cheaper."""
    if any(not values for values in pins.values()):
        return None
    current = cost(point)
    improved = True
    while improved:
        improved = False
        for item in dimensions:
            for value in pins.get(item.name, _candidates(item)):
                trial = {**point, item.name: value}
                found = cost(trial)
                if found is not None and (current is None or found < current):
                    point, current, improved = trial, found, True
    return None if current is None else (current, point)
