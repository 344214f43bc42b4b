"""Points of a search space as vectors for a surrogate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autopeft.configuration import BoundSpace, Configuration, OptionValue, Parameter
from autopeft.samplers._points import Point
from autopeft.samplers._values import to_unit

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float64]


class Encoder:
    """Maps points to vectors in [0, 1]^d, the same way in every study of a space.

    Params come first: a number at its place in its range (sizes and rates on their logarithmic scale), a categorical
    whose choices are numbers by rank, any other one-hot. An inactive parameter stands at the middle of its range
    whatever its value, so that it adds nothing to the distance of two points that both do without it.
    Features of the compiled configuration follow, because sizes are scaled to the budget and because what a generator
    means is seen only in what it generates: log cost, share and mean depth of the tuned layers, lowest tuned layer,
    and for every module type its share of the layers and its mean log size.

    Args:
        space: What is searched.
    """

    def __init__(self, space: BoundSpace) -> None:
        self._parameters = space.parameters
        self._n_layers = space.shapes.n_layers
        self._log_cap = math.log1p(space.budget or space.shapes.parameters)
        self._log_size = math.log1p(space.shapes.hidden_size)
        self._cost_column = sum(len(_columns(item, None)) for item in space.parameters)
        self._types = tuple(sorted({rule.type for rule in space.space.modules}))

    def encode(self, points: Sequence[Point]) -> Array:
        """Encode points.

        Args:
            points: Of the encoder's space.

        Returns:
            Vectors (n x d).
        """
        rows = [[*self._params(point.params), *self._features(point)] for point in points]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1)

    def log_cost(self, x: Tensor) -> Tensor:
        """Read log10(1 + trainable parameters) back from vectors (... x d)."""
        return x[..., self._cost_column] * (self._log_cap / math.log(10))

    def _params(self, params: Mapping[str, OptionValue]) -> list[float]:
        columns: list[float] = []
        for parameter in self._parameters:
            columns += _columns(parameter, params.get(parameter.name))
        return columns

    def _features(self, point: Point) -> list[float]:
        configuration = point.configuration
        depths = tuned_layers(configuration)
        n = self._n_layers
        features = [
            math.log1p(point.trainable_parameters) / self._log_cap,
            len(depths) / n,
            (sum(depths) / len(depths) + 0.5) / n if depths else 0.5,
            min(depths) / n if depths else 1.0,
        ]
        layers: dict[str, set[int | None]] = {name: set() for name in self._types}
        sizes: dict[str, list[float]] = {name: [] for name in self._types}
        for item in configuration.placements:
            layers[item.module.type].add(item.site.layer)
            sizes[item.module.type].append(math.log1p(item.module.size or 1))
        for name in self._types:
            features.append(min(len(layers[name]) / n, 1.0))
            features.append(min(sum(sizes[name]) / (len(sizes[name]) or 1) / self._log_size, 1.0))
        return features


def tuned_layers(configuration: Configuration) -> list[int]:
    """Indices of the layers with a module, lowest first."""
    return sorted({item.site.layer for item in configuration.placements if item.site.layer is not None})


def _columns(parameter: Parameter, value: OptionValue | None) -> list[float]:
    """Columns of one parameter; None stands for inactive."""
    if parameter.type in ("int", "float"):
        return [0.5 if value is None else to_unit(parameter, value)]
    if parameter.type == "bool":
        return [0.5 if value is None else float(value)]
    n = len(parameter.choices)
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in parameter.choices):
        ranked = sorted(parameter.choices, key=float)
        return [0.5 if value is None or n == 1 else ranked.index(value) / (n - 1)]
    # Two different choices are as far apart as the two ends of a number's range.
    scale = math.sqrt(0.5)
    return [scale / n if value is None else scale * (item == value) for item in parameter.choices]
