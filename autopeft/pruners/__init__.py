"""What stops a trial before its end: functions of the trials. No torch."""

from autopeft.pruners._base import Decision, Pruner, Reason
from autopeft.pruners._calibration import RankCorrelation, rank_correlation
from autopeft.pruners._policy import NoPruner
from autopeft.pruners._registry import PRUNERS, PrunerFactory, make_pruner
from autopeft.pruners._report import (
    PRUNING_ATTRIBUTE,
    PRUNING_NOTE,
    describe_pruning,
    pruning_report,
    rung_correlations,
)
from autopeft.pruners._revive import to_continue

__all__ = [
    "PRUNERS",
    "PRUNING_ATTRIBUTE",
    "PRUNING_NOTE",
    "Decision",
    "NoPruner",
    "Pruner",
    "PrunerFactory",
    "RankCorrelation",
    "Reason",
    "describe_pruning",
    "make_pruner",
    "pruning_report",
    "rank_correlation",
    "rung_correlations",
    "to_continue",
]
