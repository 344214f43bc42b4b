"""Configurations of one backbone said on another: by relative depth, at the same share of the parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autopeft.configuration import (
    BackboneShapes,
    BoundSpace,
    Configuration,
    ModuleSpec,
    ModuleTypes,
    Site,
    parameter_count,
)
from autopeft.exceptions import ConfigurationError
from autopeft.samplers._earlier import EarlierStudy, EarlierTrial
from autopeft.samplers._encoding import Encoder

#: Trials of an earlier study that a space must be able to say, so that a model of them means something.
MIN_EARLIER_TRIALS = 6
#: Sizes are scaled by at most this factor, up or down.
_MAX_FACTOR = 64.0
_N_BISECTIONS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """An earlier trial as it would be in this space.

    Args:
        configuration: Said on this backbone.
        trainable_parameters: Exact count here.
        origin: The trial.
    """

    configuration: Configuration
    trainable_parameters: int
    origin: EarlierTrial


def bring_here(study: EarlierStudy, space: BoundSpace) -> list[Here]:
    """The trials of an earlier study that this space's surrogate can be shown: known types, within the budget."""
    shapes, encoder = space.shapes, Encoder(space)
    is_same = (study.n_layers, study.backbone_parameters) == (shapes.n_layers, shapes.parameters)
    found = []
    for item in study.trials:
        configuration: Configuration | None = item.configuration
        if not is_same:
            configuration = translate(
                item.configuration,
                n_layers=study.n_layers,
                share=item.trainable_parameters / study.backbone_parameters,
                shapes=shapes,
                module_types=space.module_types,
            )
        if configuration is None or not encoder.can_encode(configuration):
            continue
        count = item.trainable_parameters if is_same else space.parameter_count(configuration)
        if space.budget is None or count <= space.budget:
            found.append(Here(configuration=configuration, trainable_parameters=count, origin=item))
    return found


def translate(
    configuration: Configuration,
    *,
    n_layers: int,
    share: float,
    shapes: BackboneShapes,
    module_types: ModuleTypes,
) -> Configuration | None:
    """Say a configuration on another backbone.

    Layer l of L takes what layer floor((l + 1/2) L' / L) of the other backbone's L' layers has. Modules that cannot
    stand here are left out. All sizes are multiplied by one factor, so that the share of the backbone's parameters
    that is trained comes as near to the other's as whole sizes allow.

    Args:
        configuration: On the other backbone.
        n_layers: Layers of the other backbone, >= 1.
        share: Its trainable parameters as a share of the other backbone's parameters, > 0.
        shapes: This backbone.
        module_types: `autopeft.modules.MODULES`.

    Returns:
        The configuration here; None if none of its modules can stand here.
    """
    by_layer: dict[int | None, list[tuple[str, ModuleSpec]]] = {}
    for item in configuration.placements:
        by_layer.setdefault(item.site.layer, []).append((item.site.part, item.module))
    pairs = [(Site(layer=None, part=part), module) for part, module in by_layer.get(None, [])]
    for layer in range(shapes.n_layers):
        there = int((layer + 0.5) * n_layers / shapes.n_layers)
        pairs += [(Site(layer=layer, part=part), module) for part, module in by_layer.get(there, [])]
    pairs = [(site, module) for site, module in pairs if _stands(site, module, shapes, module_types)]
    if not pairs:
        return None

    def at(factor: float) -> Configuration:
        return Configuration.make(
            [(site, _sized(module, factor)) for site, module in pairs],
            learning_rate=configuration.learning_rate,
            dynamics=configuration.dynamics,
        )

    wanted = share * shapes.parameters

    def excess(factor: float) -> float:
        return parameter_count(at(factor), shapes, module_types) - wanted

    try:
        low, high = 1 / _MAX_FACTOR, _MAX_FACTOR
        for _ in range(_N_BISECTIONS):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if excess(middle) <= 0 else (low, middle)
        return at(min((low, high), key=lambda factor: abs(excess(factor))))
    except ConfigurationError:
        return None


def _stands(site: Site, module: ModuleSpec, shapes: BackboneShapes, module_types: ModuleTypes) -> bool:
    """Whether a module exists here: its type is known and the backbone has the site."""
    kind = module_types.get(module.type)
    if kind is None or site.part not in kind.parts:
        return False
    try:
        return kind.parameter_count(module, site, shapes) > 0
    except ConfigurationError:
        return False


def _sized(module: ModuleSpec, factor: float) -> ModuleSpec:
    if module.size is None:
        return module
    return ModuleSpec(type=module.type, size=max(1, round(module.size * factor)), options=module.options)
