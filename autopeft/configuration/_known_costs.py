"""Costs that a configuration has before it is trained: closed forms of configuration and backbone."""

from __future__ import annotations

from collections.abc import Callable

from autopeft.configuration._configuration import Configuration
from autopeft.configuration._shapes import BackboneShapes, ModuleTypes, parameter_count

#: Closed form of a cost >= 0.
KnownCost = Callable[[Configuration, BackboneShapes, ModuleTypes], float]

_FLOAT32_BYTES = 4
#: Export classes of what disappears in the backbone's own weights.
_MERGED = frozenset({"lora", "merge"})


def export_class(type_name: str, module_types: ModuleTypes) -> str:
    """How a module type can be exported; a type that does not say needs our own code where it is loaded: ``"own"``."""
    return str(getattr(module_types[type_name], "export_class", "own"))


def stored_bytes(configuration: Configuration, shapes: BackboneShapes, module_types: ModuleTypes) -> float:
    """Bytes of the trained parameters in float32, task head and file headers excluded."""
    return float(_FLOAT32_BYTES * parameter_count(configuration, shapes, module_types))


def inference_flops_per_token(configuration: Configuration, shapes: BackboneShapes, module_types: ModuleTypes) -> float:
    """Floating-point operations that the modules add to one token's forward pass after merging.

    Modules that merge into the backbone's weights add none. Of the others every parameter is multiplied and added once
    per token: two operations. An upper bound for modules that use part of their parameters per token (mixtures with a
    router); what longer sequences add elsewhere is not counted.
    """
    staying = [item for item in configuration.placements if export_class(item.module.type, module_types) not in _MERGED]
    return 2.0 * sum(module_types[item.module.type].parameter_count(item.module, item.site, shapes) for item in staying)


#: By the name of the objective.
KNOWN_COSTS: dict[str, KnownCost] = {
    "trainable_parameters": lambda configuration, shapes, module_types: float(
        parameter_count(configuration, shapes, module_types)
    ),
    "stored_bytes": stored_bytes,
    "inference_flops_per_token": inference_flops_per_token,
}


def known_costs(configuration: Configuration, shapes: BackboneShapes, module_types: ModuleTypes) -> dict[str, float]:
    """Natural values of all known costs, by name."""
    return {name: cost(configuration, shapes, module_types) for name, cost in KNOWN_COSTS.items()}
