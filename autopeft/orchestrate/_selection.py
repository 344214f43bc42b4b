"""Which trial is best is the study's own question: see `autopeft.study`."""

from autopeft.study import (
    best_baseline,
    best_of,
    best_within_budget,
    quality,
    search_front,
    to_confirm,
    within_budget,
)

__all__ = [
    "best_baseline",
    "best_of",
    "best_within_budget",
    "quality",
    "search_front",
    "to_confirm",
    "within_budget",
]
