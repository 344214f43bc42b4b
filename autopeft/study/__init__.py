"""What was asked and what happened: measurements, trials, studies, fronts. No torch."""

from autopeft.study._front import Front
from autopeft.study._measurement import REPORT_SPLIT, SEARCH_SPLIT, CurvePoint, Fidelity, Measurement, Rung
from autopeft.study._selection import (
    best_baseline,
    best_of,
    best_within_budget,
    keeps_constraints,
    quality,
    search_front,
    to_confirm,
    unkept_constraints,
    within_budget,
)
from autopeft.study._study import Study, StudySpec
from autopeft.study._trial import Failure, Trial, TrialDraft, TrialKind, TrialState

__all__ = [
    "REPORT_SPLIT",
    "SEARCH_SPLIT",
    "CurvePoint",
    "Failure",
    "Fidelity",
    "Front",
    "Measurement",
    "Rung",
    "Study",
    "StudySpec",
    "Trial",
    "TrialDraft",
    "TrialKind",
    "TrialState",
    "best_baseline",
    "best_of",
    "best_within_budget",
    "keeps_constraints",
    "quality",
    "search_front",
    "to_confirm",
    "unkept_constraints",
    "within_budget",
]
