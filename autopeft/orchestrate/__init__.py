"""The search itself: ask, execute, tell; baselines; confirmation; the local executor."""

from autopeft.orchestrate._baselines import Baseline, baselines
from autopeft.orchestrate._confirm import summarize
from autopeft.orchestrate._events import Plan, Progress, SilentProgress
from autopeft.orchestrate._executor import Executor, LocalExecutor
from autopeft.orchestrate._fidelity import FidelityPlan, resolve_fidelity, study_pruner
from autopeft.orchestrate._loop import SearchLoop, SearchResult
from autopeft.orchestrate._prepare import PreparedSearch, prepare, resume_command
from autopeft.orchestrate._reopen import ReopenedStudy, reopen
from autopeft.orchestrate._search import load_runner, make_plan, planned_baselines, run_search
from autopeft.orchestrate._settings import SearchSettings, parse_duration, parse_share
from autopeft.orchestrate._statistics import Interval, difference_interval, score_interval
from autopeft.orchestrate._warm_start import WarmStart, begin_study, find_warm_start

__all__ = [
    "FidelityPlan",
    "resolve_fidelity",
    "study_pruner",
    "Baseline",
    "Executor",
    "Interval",
    "LocalExecutor",
    "Plan",
    "PreparedSearch",
    "Progress",
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
    "load_runner",
    "make_plan",
    "parse_duration",
    "parse_share",
    "planned_baselines",
    "prepare",
    "reopen",
    "resume_command",
    "run_search",
    "score_interval",
    "summarize",
]
