"""The shapes of a backbone, enough to count parameters without loading weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from autopeft.configuration._configuration import Configuration, ModuleSpec, OptionValue, Site
from autopeft.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearShape:
    """A linear map from ``in_features`` to ``out_features``."""

    in_features: int
    out_features: int
    has_bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NormShape:
    """A normalisation with ``features`` weights and, if ``has_bias``, as many biases."""

    features: int
    has_bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """One transformer layer.

    Args:
        linears: Shape of each linear part the layer has (``gate`` only in gated feed-forwards).
        norms: Its normalisations, in the order of the computation.
        n_kv_heads: Heads of keys and values (fewer than query heads with grouped-query attention).
        head_size: Width of one head.
    """

    linears: Mapping[str, LinearShape]
    norms: tuple[NormShape, ...]
    n_kv_heads: int
    head_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneShapes:
    """A backbone as far as counting is concerned.

    Args:
        architecture: ``model_type`` of its transformers configuration.
        hidden_size: Width of the residual stream.
        layers: Its layers, bottom first.
        embedding_parameters: Parameters outside the layers that ``full`` at ``embedding`` trains.
        parameters: All parameters of the backbone, the task head excluded; the base of ``--budget N%``.
        embedding_size: Width of the token embeddings; None where it is the hidden size.
    """

    architecture: str
    hidden_size: int
    layers: tuple[LayerShape, ...]
    embedding_parameters: int
    parameters: int
    embedding_size: int | None = None

    @property
    def n_layers(self) -> int:
        return len(self.layers)


class ModuleOption(Protocol):
    """What the torch-free side must know of an option of a module type."""

    @property
    def default(self) -> OptionValue:
        """Value when a spec does not name the option; its type is the option's type."""

    @property
    def domain(self) -> str:
        """The allowed values in words."""

    def accepts(self, value: OptionValue) -> bool:
        """Whether a value is allowed."""


class ModuleType(Protocol):
    """What the torch-free side must know of a module type; `autopeft.modules.MODULES` holds the real ones."""

    @property
    def name(self) -> str:
        """Key in `MODULES`."""

    @property
    def parts(self) -> frozenset[str]:
        """Parts at which it can stand."""

    @property
    def is_sized(self) -> bool:
        """Whether `ModuleSpec.size` is required (True) or must be None (False)."""

    @property
    def options(self) -> Mapping[str, ModuleOption]:
        """Options by name."""

    def parameter_count(self, spec: ModuleSpec, site: Site, shapes: BackboneShapes) -> int:
        """Trainable parameters of `spec` at `site`: exact, closed form; 0 if the backbone has no such site."""


@runtime_checkable
class CanonicalType(Protocol):
    """A module type whose modules can be written in several ways, or are sometimes of another type altogether."""

    def canonical(self, spec: ModuleSpec) -> ModuleSpec:
        """The one way to write a module: modules that compute the same have equal canonical forms.

        Args:
            spec: A module of this type; options that repeat a default may be missing.

        Returns:
            The canonical form, perhaps of another type that can stand at the same parts; its own canonical form.
        """


@runtime_checkable
class ExpandingType(Protocol):
    """A module type of which some modules are several modules of other types."""

    def expand(self, spec: ModuleSpec, site: Site) -> Sequence[tuple[Site, ModuleSpec]] | None:
        """The modules that compute the same together.

        Args:
            spec: A module of this type in canonical form.
            site: Where it stands.

        Returns:
            Sites, those that a backbone may lack included, and canonical modules; None if it is a module of its own.
        """


@runtime_checkable
class ReplacingType(Protocol):
    """A module type that trains the backbone's own tensors of a site; a site holds one module of all such types."""

    @property
    def replaces(self) -> bool:
        """True."""


@runtime_checkable
class SharingType(Protocol):
    """A module type whose modules at several sites can have parameters in common."""

    def shared_parameter_count(self, specs: Collection[ModuleSpec]) -> int:
        """Trainable parameters that modules of one configuration have in common; `parameter_count` leaves them out.

        Args:
            specs: All modules of this type in a configuration. The result must not depend on their sizes.

        Raises:
            ConfigurationError: If they cannot share; the message names the options.
        """


ModuleTypes = Mapping[str, ModuleType]


def parameter_count(configuration: Configuration, shapes: BackboneShapes, module_types: ModuleTypes) -> int:
    """Count the trainable PEFT parameters, task head excluded: each placement's closed form, and what they share.

    Raises:
        ConfigurationError: As `placement_counts`.
    """
    counts = placement_counts(configuration, shapes, module_types)
    return sum(counts) + shared_beside(counts, configuration, module_types)


def placement_counts(configuration: Configuration, shapes: BackboneShapes, module_types: ModuleTypes) -> list[int]:
    """Trainable parameters of each placement alone, in the configuration's order.

    Raises:
        ConfigurationError: If a placement names a layer, part or type that does not exist, or lacks its size.
    """
    counts = []
    for item in configuration.placements:
        kind = module_types.get(item.module.type)
        if kind is None:
            known = ", ".join(sorted(module_types))
            raise ConfigurationError(f"unknown module type {item.module.type!r}. Known: {known}.")
        if item.site.part not in kind.parts:
            allowed = ", ".join(sorted(kind.parts))
            raise ConfigurationError(f"{kind.name} cannot stand at {item.site.part}; it can at {allowed}.")
        if kind.is_sized != (item.module.size is not None):
            rule = "needs a size" if kind.is_sized else "takes no size"
            raise ConfigurationError(f"{kind.name} {rule}, but got size={item.module.size}.")
        if item.site.layer is not None and item.site.layer >= shapes.n_layers:
            raise ConfigurationError(
                f"layer {item.site.layer} does not exist: the backbone has layers 0 to {shapes.n_layers - 1}."
            )
        counts.append(kind.parameter_count(item.module, item.site, shapes))
    return counts


def shared_beside(counts: Sequence[int], configuration: Configuration, module_types: ModuleTypes) -> int:
    """What placements with these counts have in common: those that have parameters of their own."""
    counted = [item.module for item, count in zip(configuration.placements, counts, strict=True) if count]
    return shared_parameter_count(counted, module_types)


def shared_parameter_count(specs: Collection[ModuleSpec], module_types: ModuleTypes) -> int:
    """Count what modules of one configuration have in common, beyond the parameters that each has for itself.

    Raises:
        ConfigurationError: If they cannot share.
    """
    total = 0
    for name in dict.fromkeys(spec.type for spec in specs):
        kind: Any = module_types[name]
        # What `isinstance(kind, SharingType)` would say, which is slow, and asked of every point.
        if hasattr(kind, "shared_parameter_count"):
            total += kind.shared_parameter_count([spec for spec in specs if spec.type == name])
    return total
