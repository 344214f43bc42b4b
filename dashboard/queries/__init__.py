"""From the store to frames: pure functions of what is stored, and the only place that asks it anything."""

from ._adapters import StoredAdapter, adapter_archive, stored_adapters
from ._cells import EMBEDDING, average_cells, cells_frame, compared_cells, difference_table, module_words
from ._curves import chosen_trials, curves_frame, failures_frame
from ._fidelity import fidelity_frame, rung_frame, rung_steps
from ._front import (
    Role,
    add_roles,
    best_number,
    constraints_of,
    front_numbers,
    is_feasible,
    knee_number,
    seed_intervals,
)
from ._growth import hypervolume_frame, is_rival, reference_values, rival_band
from ._health import Card, Status, health_cards
from ._insight import Importance, importance, params_frame
from ._left_out import LeftOutFacts, left_out_facts
from ._result import Result, result_of
from ._studies import STUDY_COLUMNS, filtered, studies_frame, study_facts, study_state
from ._surrogate import SurrogateFacts, surrogate_facts
from ._texts import (
    code_snippet,
    configuration_json,
    configuration_yaml,
    counted,
    export_command,
    file_name,
    latex_table,
)
from ._trials import COLUMNS, has_direction, measured, trials_frame, value_names, worth_listing
from ._workers import WORKER_COLUMNS, serving, workers_frame

__all__ = [
    "COLUMNS",
    "EMBEDDING",
    "STUDY_COLUMNS",
    "WORKER_COLUMNS",
    "Card",
    "Importance",
    "LeftOutFacts",
    "Result",
    "Role",
    "Status",
    "StoredAdapter",
    "SurrogateFacts",
    "adapter_archive",
    "add_roles",
    "average_cells",
    "best_number",
    "cells_frame",
    "chosen_trials",
    "code_snippet",
    "compared_cells",
    "configuration_json",
    "configuration_yaml",
    "constraints_of",
    "counted",
    "curves_frame",
    "difference_table",
    "export_command",
    "failures_frame",
    "fidelity_frame",
    "file_name",
    "filtered",
    "front_numbers",
    "has_direction",
    "health_cards",
    "hypervolume_frame",
    "importance",
    "is_feasible",
    "is_rival",
    "knee_number",
    "latex_table",
    "left_out_facts",
    "measured",
    "module_words",
    "params_frame",
    "reference_values",
    "result_of",
    "rival_band",
    "rung_frame",
    "rung_steps",
    "seed_intervals",
    "serving",
    "studies_frame",
    "stored_adapters",
    "study_facts",
    "study_state",
    "surrogate_facts",
    "trials_frame",
    "value_names",
    "workers_frame",
    "worth_listing",
]
