"""What is trained, costed, cached and exported: which module stands at which site."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autopeft.exceptions import ConfigurationError

#: Where something can be tuned. A layer's linear maps, its two blocks, its small tensors, and what lies outside layers.
LINEAR_PARTS = ("q", "k", "v", "o", "up", "gate", "down")
BLOCK_PARTS = ("attention", "ffn")
PARTS = (*LINEAR_PARTS, *BLOCK_PARTS, "norm", "bias", "embedding")

OptionValue = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place in the backbone where something can be tuned.

    Args:
        part: One of `PARTS`.
        layer: Zero-based layer index; None for parts outside the layers (``embedding``).
    """

    part: str
    layer: int | None

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ConfigurationError(f"site part must be one of {', '.join(PARTS)}, but got {self.part!r}.")
        if (self.layer is None) != (self.part == "embedding"):
            raise ConfigurationError(f"a layer index goes with every part but embedding, but got {self!r}.")
        if self.layer is not None and self.layer < 0:
            raise ConfigurationError(f"`layer >= 0` must hold, but got {self.layer}.")

    @property
    def sort_key(self) -> tuple[int, int]:
        """Bottom of the network first, then the order of `PARTS`."""
        return (-1 if self.layer is None else self.layer, PARTS.index(self.part))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """The description of one PEFT block, independent of where it stands.

    Args:
        type: Key of `autopeft.modules.MODULES`, for example ``"lora"``.
        size: Rank, bottleneck or prefix length, at least 1; None for types without a size. Never 0: absent is absent.
        options: Further settings as sorted (name, value) pairs; build them with `make`.
    """

    type: str
    size: int | None = None
    options: tuple[tuple[str, OptionValue], ...] = ()

    def __post_init__(self) -> None:
        if self.size is not None and (isinstance(self.size, bool) or self.size < 1):
            raise ConfigurationError(f"{self.type}: `size >= 1` must hold, but got {self.size}; leave the module out.")
        names = [name for name, _ in self.options]
        if names != sorted(set(names)):
            raise ConfigurationError(f"{self.type}: options must be sorted and unique, but got {names}.")

    @classmethod
    def make(cls, type: str, size: int | None = None, **options: OptionValue) -> ModuleSpec:
        """Build a spec from keyword options, in canonical order."""
        return cls(type=type, size=size, options=tuple(sorted(options.items())))

    def option(self, name: str, default: OptionValue) -> OptionValue:
        """Value of an option, or the default of the module type."""
        return dict(self.options).get(name, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicsSpec:
    """What changes during training: which modules are updated when.

    Args:
        type: Key of `DYNAMICS_TYPES`, for example ``"lisa"``.
        options: Settings as sorted (name, value) pairs; build them with `make`.
    """

    type: str
    options: tuple[tuple[str, OptionValue], ...] = ()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.options]
        if names != sorted(set(names)):
            raise ConfigurationError(f"{self.type}: options must be sorted and unique, but got {names}.")

    @classmethod
    def make(cls, type: str, **options: OptionValue) -> DynamicsSpec:
        """Build a spec from keyword options, in canonical order."""
        return cls(type=type, options=tuple(sorted(options.items())))

    def option(self, name: str, default: OptionValue) -> OptionValue:
        """Value of an option, or the default of the type."""
        return dict(self.options).get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` is its inverse."""
        return {"type": self.type, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DynamicsSpec:
        """Rebuild a spec from `to_dict`."""
        return cls.make(data["type"], **data["options"])

    def describe(self) -> str:
        """The dynamics in words: ``"lisa (interval 10, layers 2)"``."""
        words = ", ".join(f"{name} {_word(value)}" for name, value in self.options)
        return self.type + (f" ({words})" if words else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One module at one site."""

    site: Site
    module: ModuleSpec

    @property
    def sort_key(self) -> tuple[int, int, str]:
        return (*self.site.sort_key, self.module.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A canonical, fully expanded PEFT configuration.

    An empty tuple of placements is valid: only the task head is trained.

    Args:
        placements: Sorted by site and module type, at most one module of a type per site; build with `make`.
        learning_rate: Peak learning rate of the trained parameters, finite and > 0.
        dynamics: What changes during training; None if everything is updated at every step.
    """

    placements: tuple[Placement, ...]
    learning_rate: float
    dynamics: DynamicsSpec | None = None
    # Worked out once: who looks for repetitions asks for it of every trial, again and again.
    _fingerprint: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigurationError(f"`learning_rate > 0` must hold, but got {self.learning_rate}.")
        keys = [placement.sort_key for placement in self.placements]
        if keys != sorted(set(keys)):
            raise ConfigurationError("placements must be sorted, with at most one module of a type at a site.")

    @classmethod
    def make(
        cls,
        placements: Iterable[tuple[Site, ModuleSpec]],
        *,
        learning_rate: float,
        dynamics: DynamicsSpec | None = None,
    ) -> Configuration:
        """Build a configuration from (site, module) pairs in any order."""
        items = sorted((Placement(site=site, module=module) for site, module in placements), key=_sort_key)
        return cls(placements=tuple(items), learning_rate=learning_rate, dynamics=dynamics)

    @property
    def lowest_layer(self) -> int | None:
        """Index of the lowest layer with a module; None if no layer has one. Embedding modules count as layer 0."""
        layers = [0 if item.site.layer is None else item.site.layer for item in self.placements]
        return min(layers) if layers else None

    @property
    def module_types(self) -> tuple[str, ...]:
        """Sorted names of the module types in use."""
        return tuple(sorted({item.module.type for item in self.placements}))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` is its inverse."""
        data: dict[str, Any] = {
            "learning_rate": self.learning_rate,
            "modules": [
                {
                    "layer": item.site.layer,
                    "part": item.site.part,
                    "type": item.module.type,
                    "size": item.module.size,
                    "options": dict(item.module.options),
                }
                for item in self.placements
            ],
        }
        # Left out where it is None: identities from before there were dynamics stay what they are.
        return data if self.dynamics is None else {**data, "dynamics": self.dynamics.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Configuration:
        """Rebuild a configuration from `to_dict`.

        Raises:
            ConfigurationError: If a key is missing or a value is invalid.
        """
        try:
            pairs = [
                (
                    Site(layer=item["layer"], part=item["part"]),
                    ModuleSpec.make(item["type"], item["size"], **item.get("options", {})),
                )
                for item in data["modules"]
            ]
            dynamics = DynamicsSpec.from_dict(data["dynamics"]) if "dynamics" in data else None
            return cls.make(pairs, learning_rate=float(data["learning_rate"]), dynamics=dynamics)
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"not a configuration: {error!r} in {str(data)[:200]}.") from error

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON: the configuration's identity."""
        if self._fingerprint is None:
            canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
            object.__setattr__(self, "_fingerprint", hashlib.sha256(canonical.encode()).hexdigest()[:16])
        return str(self._fingerprint)

    def describe(self) -> str:
        """The configuration in words, for tables and hover texts."""
        dynamics = "" if self.dynamics is None else f" with {self.dynamics.describe()}"
        if not self.placements:
            return f"head only{dynamics}, lr {self.learning_rate:.2g}"
        groups: dict[str, dict[str, dict[int | None, int | None]]] = {}
        for item in self.placements:
            sizes = groups.setdefault(item.module.type, {}).setdefault(item.site.part, {})
            sizes[item.site.layer] = item.module.size
        words = []
        for kind, by_part in groups.items():
            # Parts with the same sizes on the same layers are said together.
            merged: dict[tuple[tuple[int | None, int | None], ...], list[str]] = {}
            for part, by_layer in by_part.items():
                merged.setdefault(tuple(by_layer.items()), []).append(part)
            places = []
            for by_layer_items, parts in merged.items():
                layers = [layer for layer, _ in by_layer_items if layer is not None]
                known = sorted({size for _, size in by_layer_items if size is not None})
                size = f"{known[0]}-{known[-1]} " if len(known) > 1 else f"{known[0]} " if known else ""
                where = f" of {layer_ranges(layers)}" if layers else ""
                places.append(f"{size}on {','.join(parts)}{where}")
            words.append(f"{kind} {'; '.join(places)}{self._describe_options(kind)}")
        return " + ".join(words) + f"{dynamics}, lr {self.learning_rate:.2g}"

    def _describe_options(self, kind: str) -> str:
        """Options of a module type, over all its placements: ``" (experts 2-8, router topp)"``."""
        found: dict[str, list[OptionValue]] = {}
        for item in self.placements:
            for name, value in item.module.options if item.module.type == kind else ():
                found.setdefault(name, []).append(value)
        words = []
        for name, values in sorted(found.items()):
            numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
            if len(numbers) == len(values) and min(numbers) < max(numbers):
                words.append(f"{name} {_word(min(numbers))}-{_word(max(numbers))}")
            else:
                words.append(f"{name} {'/'.join(dict.fromkeys(map(_word, values)))}")
        return f" ({', '.join(words)})" if words else ""


def _sort_key(placement: Placement) -> tuple[int, int, str]:
    return placement.sort_key


def _word(value: OptionValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def layer_ranges(layers: Iterable[int]) -> str:
    """Write layer indices as ranges: ``(0, 1, 2, 5)`` becomes ``"0-2,5"``."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
