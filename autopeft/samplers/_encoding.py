"""Configurations as vectors for a surrogate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autopeft.configuration import BoundSpace, Configuration
from autopeft.samplers._known import Configured
from autopeft.samplers._option_columns import OptionColumns

Array = npt.NDArray[np.float64]

#: Layers are told apart up to this many; deeper backbones share one column among neighbouring layers.
_MAX_DEPTHS = 8
#: Weight of the columns that tell parts apart: they only break ties between equally sized modules.
_PART_WEIGHT = 0.3
_ATTENTION = frozenset({"q", "k", "v", "o", "attention"})


class Encoder:
    """Maps configurations to vectors of about unit range, the same way in every study of a space.

    A surrogate is shown what a point of the space compiles to, not the point: equal configurations have equal codes,
    parameters that are inactive, scaled down to the budget or rounded away add no distance, and baselines that came
    from no point can teach as well. (With the raw params as further dimensions the surrogate ranked unseen
    configurations worse until about 40 observations, and no better after that.) Columns, each a share of the largest
    possible value on its logarithmic scale where it is a count:

    - log cost, log learning rate, share of tuned layers, share of the cost on the attention side;
    - log cost of each layer, or of each of `_MAX_DEPTHS` groups of layers;
    - log cost of each module type;
    - log cost at each part that the space can choose, and outside the layers, at weight `_PART_WEIGHT`;
    - options and dynamics that the space can choose, see `OptionColumns`.

    Args:
        space: What is searched.
    """

    def __init__(self, space: BoundSpace) -> None:
        rules = space.space.modules
        self._shapes = space.shapes
        self._module_types = space.module_types
        self._log_cap = math.log1p(space.budget or space.shapes.parameters)
        self._n_depths = min(space.shapes.n_layers, _MAX_DEPTHS)
        types = sorted(space.type_names)
        # What stands outside the layers has no column of a layer.
        choosing = [rule for rule in rules if len(rule.parts.lists) > 1 or rule.parts.is_embedding]
        parts = sorted({(rule.type, part) for rule in choosing for part in rule.parts.all_parts})
        first = 4 + self._n_depths
        self._type_columns = {name: first + i for i, name in enumerate(types)}
        self._part_columns = {key: first + len(types) + i for i, key in enumerate(parts)}
        self._first_option = first + len(types) + len(parts)
        self._options = OptionColumns(space)
        self._n_columns = self._first_option + self._options.width
        self._low_rate, self._high_rate = _rate_range(space)

    def can_encode(self, configuration: Configuration) -> bool:
        """Whether a configuration is of the kind that is searched: something is tuned, by known types only."""
        if configuration.dynamics is not None and configuration.dynamics.type not in self._options.dynamics:
            return False
        return bool(configuration.placements) and set(configuration.module_types) <= self._type_columns.keys()

    def encode(self, items: Sequence[Configured]) -> Array:
        """Encode configurations.

        Args:
            items: Configurations that can be encoded.

        Returns:
            Vectors (n x d).
        """
        return np.array([self._row(item) for item in items], dtype=np.float64).reshape(len(items), self._n_columns)

    def _row(self, item: Configured) -> Array:
        counts = np.zeros(self._n_columns)
        attention, layers = 0, set()
        n_layers = self._shapes.n_layers
        for placement in item.configuration.placements:
            kind, site = placement.module.type, placement.site
            count = self._module_types[kind].parameter_count(placement.module, site, self._shapes)
            attention += count if site.part in _ATTENTION else 0
            if site.layer is not None:
                layers.add(site.layer)
                counts[4 + site.layer * self._n_depths // n_layers] += count
            counts[self._type_columns[kind]] += count
            if (kind, site.part) in self._part_columns:
                counts[self._part_columns[kind, site.part]] += count
        row = np.log1p(counts) / self._log_cap
        row[list(self._part_columns.values())] *= _PART_WEIGHT
        rate = math.log(item.configuration.learning_rate / self._low_rate)
        row[:4] = (
            math.log1p(item.trainable_parameters) / self._log_cap,
            rate / math.log(self._high_rate / self._low_rate) if self._high_rate > self._low_rate else 0.5,
            len(layers) / n_layers,
            attention / max(item.trainable_parameters, 1),
        )
        row[self._first_option :] = self._options.encode(item.configuration)
        return np.asarray(row)


def tuned_layers(configuration: Configuration) -> list[int]:
    """Indices of the layers with a module, lowest first."""
    return sorted({item.site.layer for item in configuration.placements if item.site.layer is not None})


def _rate_range(space: BoundSpace) -> tuple[float, float]:
    """Smallest and largest learning rate of the space."""
    rate = space.space.learning_rate
    if isinstance(rate, float):
        return rate, rate
    parameter = next(item for item in space.parameters if item.name == rate)
    if parameter.low is None or parameter.high is None:
        raise ValueError(f"the learning rate {rate} must be a number with a range.")
    return parameter.low, parameter.high
