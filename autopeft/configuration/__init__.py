"""What can be searched: configurations, their shapes and costs, and search spaces. No torch."""

from autopeft.configuration._bound import BoundSpace
from autopeft.configuration._budget import parse_budget
from autopeft.configuration._configuration import (
    BLOCK_PARTS,
    LINEAR_PARTS,
    PARTS,
    Configuration,
    DynamicsSpec,
    ModuleSpec,
    OptionValue,
    Placement,
    Site,
    layer_ranges,
)
from autopeft.configuration._dynamics import DYNAMICS_TYPES, DynamicsType, check_dynamics, n_frozen
from autopeft.configuration._expand import expand
from autopeft.configuration._known_costs import KNOWN_COSTS, export_class, known_costs
from autopeft.configuration._option import Option
from autopeft.configuration._parameter import Condition, Parameter, ParameterKind, Params
from autopeft.configuration._parse import parse_search_space
from autopeft.configuration._profiles import PROFILES, profile_sizes
from autopeft.configuration._scores import SCORE_SOURCES, SiteScores, score_sizes, uniform_scores
from autopeft.configuration._shapes import (
    BackboneShapes,
    CanonicalType,
    LayerShape,
    LinearShape,
    ModuleOption,
    ModuleType,
    ModuleTypes,
    NormShape,
    parameter_count,
    placement_counts,
)
from autopeft.configuration._space import (
    DynamicsChoice,
    DynamicsRule,
    LayerRule,
    ModuleRule,
    OptionRule,
    PartsRule,
    SearchSpace,
    SizeRule,
)
from autopeft.configuration._yaml import (
    SearchSpaceInfo,
    list_search_spaces,
    load_search_space,
    read_yaml,
    search_space_files,
)

__all__ = [
    "BLOCK_PARTS",
    "DYNAMICS_TYPES",
    "KNOWN_COSTS",
    "LINEAR_PARTS",
    "PARTS",
    "PROFILES",
    "SCORE_SOURCES",
    "BackboneShapes",
    "BoundSpace",
    "CanonicalType",
    "Condition",
    "Configuration",
    "DynamicsChoice",
    "DynamicsRule",
    "DynamicsSpec",
    "DynamicsType",
    "LayerRule",
    "LayerShape",
    "LinearShape",
    "ModuleOption",
    "ModuleRule",
    "ModuleSpec",
    "ModuleType",
    "ModuleTypes",
    "NormShape",
    "Option",
    "OptionRule",
    "OptionValue",
    "Parameter",
    "ParameterKind",
    "Params",
    "PartsRule",
    "Placement",
    "SearchSpace",
    "SearchSpaceInfo",
    "Site",
    "SiteScores",
    "SizeRule",
    "check_dynamics",
    "expand",
    "export_class",
    "known_costs",
    "layer_ranges",
    "list_search_spaces",
    "load_search_space",
    "n_frozen",
    "parameter_count",
    "placement_counts",
    "parse_budget",
    "parse_search_space",
    "profile_sizes",
    "read_yaml",
    "score_sizes",
    "search_space_files",
    "uniform_scores",
]
