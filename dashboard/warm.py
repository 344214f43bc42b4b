"""What takes long the first time: modules, and what Plotly and pandas build on first use."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.objectives import COSTS, Direction, Objective

from . import figures, queries


def warm_up() -> None:
    """Load the pages and draw every kind of picture once, of made-up numbers."""
    for name in ("front", "configuration", "trials", "insight", "health", "export", "studies", "main"):
        importlib.import_module(f"{__package__}.views.{name}")
    quality, cost = Objective(name="quality", direction=Direction.MAXIMIZE), COSTS["trainable_parameters"]
    numbers = np.arange(12)
    frame = pd.DataFrame(
        {
            "number": numbers,
            "label": None,
            "role": "front",
            "rung_share": np.nan,
            "quality": numbers / 12,
            "trainable_parameters": 100 * (1 + numbers),
        }
    )
    figures.front_figure(frame, x=cost, y=quality, marks=figures.Marks(budget=500, recommended=1)).to_json()
    configuration = Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("lora", 4))], learning_rate=1e-3)
    figures.heatmap_figure(queries.cells_frame(configuration, 2)).to_json()
    points = pd.DataFrame({"number": numbers, "rank": numbers + 1})
    values = {int(number): float(number) for number in numbers}
    found = queries.importance(points, values)
    figures.importance_figure(found.frame, is_reliable=False).to_json()
    figures.parallel_figure(figures.parallel_of(points, values, quality), numbers.tolist()).to_json()
    # What only some studies need is loaded for all.
    importlib.import_module("scipy.stats")
