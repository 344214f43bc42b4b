"""autopeft: find the parameter-efficient fine-tuning configuration for your model, data and parameter budget."""

from __future__ import annotations

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.objectives import Direction, Objective
from autopeft.study import Front, Measurement, Study, Trial

__version__ = "0.1.0"

__all__ = ["Configuration", "Direction", "Front", "Measurement", "ModuleSpec", "Objective", "Site", "Study", "Trial"]
