"""A configuration as a grid: module types and parts down, layers across."""

from __future__ import annotations

from dataclasses import dataclass

from autopeft.configuration import PARTS, Configuration
from autopeft.study import Study

PRESENT = "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Which module has which size where.

    Args:
        columns: Column names: ``"embedding"`` if something stands there, then the layer indices, bottom first.
        rows: Row names, for example ``"lora q"``.
        sizes: Per row and column: the size; `PRESENT` for a module without size; None where there is none.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    sizes: tuple[tuple[int | str | None, ...], ...]

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The cells as shown: an empty cell where there is no module."""
        return tuple(tuple("" if size is None else str(size) for size in row) for row in self.sizes)


def configuration_grid(configuration: Configuration, n_layers: int) -> Grid:
    """Lay a configuration out over the layers of its backbone.

    Args:
        configuration: What is shown; layers at or above `n_layers` extend the grid rather than vanish.
        n_layers: Layers of the backbone, >= 0.
    """
    sites = [item.site for item in configuration.placements]
    highest = max((site.layer for site in sites if site.layer is not None), default=-1)
    layers: list[int | None] = list(range(max(n_layers, highest + 1)))
    if any(site.layer is None for site in sites):
        layers.insert(0, None)
    cells = {
        (item.module.type, item.site.part, item.site.layer): PRESENT if item.module.size is None else item.module.size
        for item in configuration.placements
    }
    keys = sorted({(kind, part) for kind, part, _ in cells}, key=lambda key: (key[0], PARTS.index(key[1])))
    return Grid(
        columns=tuple("embedding" if layer is None else str(layer) for layer in layers),
        rows=tuple(f"{kind} {part}" for kind, part in keys),
        sizes=tuple(tuple(cells.get((kind, part, layer)) for layer in layers) for kind, part in keys),
    )


def layer_count(study: Study) -> int:
    """Layers of a study's backbone: as its settings say, else as many as its trials reach."""
    stated = study.spec.backbone.get("n_layers")
    if isinstance(stated, int):
        return stated
    layers = [site.layer for trial in study.trials for site in (item.site for item in trial.configuration.placements)]
    return max((layer for layer in layers if layer is not None), default=-1) + 1
