"""The search itself: ask, execute, tell; baselines; confirmation; the executors.

What is named here is loaded when it is asked for: a worker's supervisor needs some of it, and not torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autopeft.orchestrate._baselines import Baseline, baselines
    from autopeft.orchestrate._confirm import summarize
    from autopeft.orchestrate._events import Plan, Progress, SilentProgress
    from autopeft.orchestrate._executor import Executor, LocalExecutor
    from autopeft.orchestrate._fidelity import FidelityPlan, resolve_fidelity, study_pruner
    from autopeft.orchestrate._loop import SearchLoop, SearchResult
    from autopeft.orchestrate._prepare import PreparedSearch, prepare, resume_command
    from autopeft.orchestrate._remote import Pool, RemoteExecutor
    from autopeft.orchestrate._reopen import ReopenedStudy, reopen
    from autopeft.orchestrate._search import load_runner, make_plan, planned_baselines, run_search
    from autopeft.orchestrate._settings import (
        EXECUTORS,
        SearchSettings,
        parse_bytes,
        parse_duration,
        parse_share,
        setting_name,
    )
    from autopeft.orchestrate._statistics import Interval, difference_interval, score_interval
    from autopeft.orchestrate._warm_start import WarmStart, begin_study, find_warm_start
    from autopeft.orchestrate._worker_id import is_dead, is_here, local_pid, worker_id

_PLACES = {
    "_baselines": ("Baseline", "baselines"),
    "_confirm": ("summarize",),
    "_events": ("Plan", "Progress", "SilentProgress"),
    "_executor": ("Executor", "LocalExecutor"),
    "_fidelity": ("FidelityPlan", "resolve_fidelity", "study_pruner"),
    "_loop": ("SearchLoop", "SearchResult"),
    "_prepare": ("PreparedSearch", "prepare", "resume_command"),
    "_remote": ("Pool", "RemoteExecutor"),
    "_reopen": ("ReopenedStudy", "reopen"),
    "_search": ("load_runner", "make_plan", "planned_baselines", "run_search"),
    "_settings": ("EXECUTORS", "SearchSettings", "parse_bytes", "parse_duration", "parse_share", "setting_name"),
    "_statistics": ("Interval", "difference_interval", "score_interval"),
    "_warm_start": ("WarmStart", "begin_study", "find_warm_start"),
    "_worker_id": ("is_dead", "is_here", "local_pid", "worker_id"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "EXECUTORS",
    "FidelityPlan",
    "resolve_fidelity",
    "study_pruner",
    "Baseline",
    "Executor",
    "Interval",
    "LocalExecutor",
    "Plan",
    "Pool",
    "PreparedSearch",
    "Progress",
    "RemoteExecutor",
    "ReopenedStudy",
    "SearchLoop",
    "SearchResult",
    "SearchSettings",
    "SilentProgress",
    "WarmStart",
    "baselines",
    "begin_study",
    "difference_interval",
    "find_warm_start",
    "is_dead",
    "is_here",
    "load_runner",
    "local_pid",
    "make_plan",
    "parse_bytes",
    "parse_duration",
    "parse_share",
    "planned_baselines",
    "prepare",
    "reopen",
    "resume_command",
    "run_search",
    "score_interval",
    "setting_name",
    "summarize",
    "worker_id",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
