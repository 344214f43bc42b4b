"""From the store to frames: pure functions of what is stored, and the only place that asks it anything."""

from ._cells import EMBEDDING, average_cells, cells_frame, compared_cells, difference_table, module_words
from ._front import (
    Role,
    add_roles,
    best_number,
    constraints_of,
    front_numbers,
    hypervolume_frame,
    is_feasible,
    is_rival,
    knee_number,
    reference_values,
    rival_band,
    seed_intervals,
)
from ._result import Result, result_of
from ._studies import STUDY_COLUMNS, filtered, studies_frame, study_facts, study_state
from ._trials import COLUMNS, measured, trials_frame, value_names

__all__ = [
    "COLUMNS",
    "EMBEDDING",
    "STUDY_COLUMNS",
    "Result",
    "Role",
    "add_roles",
    "average_cells",
    "best_number",
    "cells_frame",
    "compared_cells",
    "constraints_of",
    "difference_table",
    "filtered",
    "front_numbers",
    "hypervolume_frame",
    "is_feasible",
    "is_rival",
    "knee_number",
    "measured",
    "module_words",
    "reference_values",
    "result_of",
    "rival_band",
    "seed_intervals",
    "studies_frame",
    "study_facts",
    "study_state",
    "trials_frame",
    "value_names",
]
