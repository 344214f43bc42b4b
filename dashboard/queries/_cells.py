"""Configurations as grids: parts of a layer down, layers across, and in each cell what is trained there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from autopeft.configuration import PARTS, Configuration, Placement

#: Column of a placement outside the layers.
EMBEDDING = "emb."


def cells_frame(configuration: Configuration, n_layers: int, counts: Sequence[int] | None = None) -> pd.DataFrame:
    """One row per part and layer of a backbone, with what a configuration trains there.

    Args:
        configuration: What is shown; layers at or above `n_layers` extend the grid rather than vanish.
        n_layers: Layers of the backbone, >= 0.
        counts: Trainable parameters of each placement, in the configuration's order; None if they are not known.

    Returns:
        Columns ``part``, ``layer`` (text), ``label`` (module types and sizes, empty where there is nothing), ``size``
        (sum of the sizes, missing where there is nothing or nothing with a size), ``parameters`` (missing where not
        known) and ``n_modules``; rows by part in canonical order, layers ascending. Parts without any module are left
        out.
    """
    parts = [part for part in PARTS if any(item.site.part == part for item in configuration.placements)]
    known = counts if counts is not None and len(counts) == len(configuration.placements) else None
    at: dict[tuple[str, str], list[int]] = {}
    for i, item in enumerate(configuration.placements):
        at.setdefault((item.site.part, _layer(item)), []).append(i)
    rows = []
    for part in parts:
        for layer in _layers([configuration], n_layers):
            found = [configuration.placements[i] for i in at.get((part, layer), [])]
            sizes = [item.module.size for item in found if item.module.size is not None]
            parameters = None if known is None else sum(known[i] for i in at.get((part, layer), []))
            rows.append(
                {
                    "part": part,
                    "layer": layer,
                    "label": "\n".join(map(module_words, found)),
                    "size": sum(sizes) if sizes else None,
                    "parameters": parameters if found else None,
                    "n_modules": len(found),
                }
            )
    return _typed(pd.DataFrame(rows, columns=["part", "layer", "label", "size", "parameters", "n_modules"]))


def compared_cells(
    left: Configuration, right: Configuration, n_layers: int, counts: Sequence[Sequence[int] | None] = (None, None)
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two configurations on the same grid, each cell with ``differs``: whether the other has something else there.

    Options count: two modules of one type and size that differ in an option differ.
    """
    frames = [cells_frame(item, n_layers, count) for item, count in zip((left, right), counts, strict=True)]
    parts = [part for part in PARTS if any(part in set(frame["part"]) for frame in frames)]
    layers = _layers([left, right], n_layers)
    index = pd.MultiIndex.from_product([parts, layers], names=["part", "layer"])
    modules = [_modules_at(item) for item in (left, right)]
    found = []
    for frame in frames:
        whole = frame.set_index(["part", "layer"]).reindex(index).reset_index()
        whole["label"] = whole["label"].fillna("")
        whole["n_modules"] = whole["n_modules"].fillna(0)
        keys = list(zip(whole["part"], whole["layer"], strict=True))
        differs = [modules[0].get(key) != modules[1].get(key) for key in keys]
        whole["differs"] = pd.Series(differs, index=whole.index, dtype=bool)
        found.append(_typed(whole))
    return found[0], found[1]


def difference_table(left: Configuration, right: Configuration) -> pd.DataFrame:
    """What two configurations do not have in common, one row per place: ``where``, ``first``, ``second``."""
    modules = [_modules_at(item) for item in (left, right)]
    keys = sorted(
        {*modules[0], *modules[1]}, key=lambda key: (-1 if key[1] == EMBEDDING else int(key[1]), PARTS.index(key[0]))
    )
    rows = []
    for key in keys:
        first, second = (", ".join(module_words(item, options=True) for item in side.get(key, [])) for side in modules)
        if first != second:
            place = key[0] if key[1] == EMBEDDING else f"layer {key[1]}, {key[0]}"
            rows.append((place, first or "nothing", second or "nothing"))
    if left.learning_rate != right.learning_rate:
        rows.append(("learning rate", f"{left.learning_rate:.3g}", f"{right.learning_rate:.3g}"))
    if left.dynamics != right.dynamics:
        mine, other = ("none" if item.dynamics is None else item.dynamics.describe() for item in (left, right))
        rows.append(("training dynamics", mine, other))
    return pd.DataFrame(rows, columns=["where", "first", "second"])


def average_cells(
    configurations: Sequence[Configuration], n_layers: int, counts: Mapping[int, Sequence[int]] | None = None
) -> pd.DataFrame:
    """Which places good configurations tune.

    Args:
        configurations: The configurations averaged over.
        n_layers: Layers of the backbone.
        counts: Trainable parameters of each placement, by position in `configurations`; missing ones are not known.

    Returns:
        Columns ``part``, ``layer``, ``share`` (of the configurations that have a module there, in [0, 1]), ``size``
        (mean over those with a size there), ``parameters`` (mean over those of them whose counts are known) and
        ``types`` (module types there, the most frequent first).
    """
    found: dict[tuple[str, str], list[tuple[list[Placement], int | None]]] = {}
    for position, configuration in enumerate(configurations):
        known = (counts or {}).get(position)
        if known is not None and len(known) != len(configuration.placements):
            known = None
        by_place: dict[tuple[str, str], list[int]] = {}
        for i, item in enumerate(configuration.placements):
            by_place.setdefault((item.site.part, _layer(item)), []).append(i)
        for key, indices in by_place.items():
            total = None if known is None else sum(known[i] for i in indices)
            found.setdefault(key, []).append(([configuration.placements[i] for i in indices], total))
    rows = []
    for part in [part for part in PARTS if any(key[0] == part for key in found)]:
        for layer in _layers(configurations, n_layers):
            there = found.get((part, layer), [])
            sizes = [item.module.size for items, _ in there for item in items if item.module.size is not None]
            totals = [total for _, total in there if total is not None]
            types = pd.Series([item.module.type for items, _ in there for item in items], dtype=object)
            rows.append(
                {
                    "part": part,
                    "layer": layer,
                    "share": len(there) / len(configurations),
                    "size": float(np.mean(sizes)) if sizes else None,
                    "parameters": float(np.mean(totals)) if totals else None,
                    "types": ", ".join(types.value_counts().index),
                }
            )
    frame = pd.DataFrame(rows, columns=["part", "layer", "share", "size", "parameters", "types"])
    return frame.astype({"share": "float64", "size": "float64", "parameters": "float64"})


def module_words(item: Placement, *, options: bool = False) -> str:
    """A module in a few characters: ``"lora 8"``; with its options in parentheses if wanted."""
    size = "" if item.module.size is None else f" {item.module.size}"
    extra = ", ".join(f"{name} {value}" for name, value in item.module.options) if options else ""
    return f"{item.module.type}{size}" + (f" ({extra})" if extra else "")


def _modules_at(configuration: Configuration) -> dict[tuple[str, str], list[Placement]]:
    found: dict[tuple[str, str], list[Placement]] = {}
    for item in configuration.placements:
        found.setdefault((item.site.part, _layer(item)), []).append(item)
    return found


def _layers(configurations: Sequence[Configuration], n_layers: int) -> list[str]:
    sites = [item.site for configuration in configurations for item in configuration.placements]
    highest = max((site.layer for site in sites if site.layer is not None), default=-1)
    layers = [str(layer) for layer in range(max(n_layers, highest + 1))]
    return [EMBEDDING, *layers] if any(site.layer is None for site in sites) else layers


def _layer(item: Placement) -> str:
    return EMBEDDING if item.site.layer is None else str(item.site.layer)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"size": "float64", "parameters": "float64", "n_modules": "int64"})
