"""What can be searched: configurations, their shapes and costs, and search spaces. No torch."""

from autopeft.configuration._configuration import (
    BLOCK_PARTS,
    LINEAR_PARTS,
    PARTS,
    Configuration,
    ModuleSpec,
    OptionValue,
    Placement,
    Site,
    layer_ranges,
)
from autopeft.configuration._shapes import (
    BackboneShapes,
    LayerShape,
    LinearShape,
    ModuleType,
    ModuleTypes,
    NormShape,
    parameter_count,
)

__all__ = [
    "BLOCK_PARTS",
    "LINEAR_PARTS",
    "PARTS",
    "BackboneShapes",
    "Configuration",
    "LayerShape",
    "LinearShape",
    "ModuleSpec",
    "ModuleType",
    "ModuleTypes",
    "NormShape",
    "OptionValue",
    "Placement",
    "Site",
    "layer_ranges",
    "parameter_count",
]
