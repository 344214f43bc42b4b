"""Second thoughts: stopped trials that, with all that is known now, would go on."""

from __future__ import annotations

from collections.abc import Sequence

from autopeft.pruners._base import Pruner, Reason
from autopeft.study import Trial


def to_continue(pruner: Pruner, trials: Sequence[Trial]) -> list[int]:
    """Numbers of the PRUNED trials that the pruner's rule would not stop any more, the farthest along first.

    A pruner that steps back continues nothing: that would train everything that it stopped, for want of knowledge.
    Every continued trial gets at least to the next rung, so that nobody is stopped and continued for ever.

    Args:
        pruner: Of the study.
        trials: All trials of the study.
    """
    steps = {item.number: rung.step for item in trials if (rung := item.rung) is not None}
    decisions = zip(steps, pruner.decide(trials, list(steps)), strict=True)
    found = [
        (-steps[number], number)
        for number, decision in decisions
        if not decision.stop and decision.reason in (Reason.RULE, Reason.FRONT)
    ]
    return [number for _, number in sorted(found)]
