"""autopeft: find the parameter-efficient fine-tuning configuration for your model, data and parameter budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.objectives import Direction, Objective
from autopeft.study import Front, Measurement, Study, Trial

if TYPE_CHECKING:
    from autopeft.export import load

__version__ = "0.1.0"

__all__ = [
    "Configuration",
    "Direction",
    "Front",
    "Measurement",
    "ModuleSpec",
    "Objective",
    "Site",
    "Study",
    "Trial",
    "load",
]


def __getattr__(name: str) -> Any:
    # Loading an export needs torch, importing autopeft does not.
    if name == "load":
        from autopeft.export import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
