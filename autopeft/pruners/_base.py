"""What every pruner promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from autopeft.study import Trial


class Reason(StrEnum):
    """What decided about a trial at a rung. Append only: the values are stored.

    RULE: the pruner's own rule; the only one that stops a trial.
    EXEMPT: it is no search trial, or its last point is at no rung.
    UNMEASURED: an objective is not measured at rungs, so nobody can tell who is better.
    GRACE: too few trials have come to their end for the rung to be judged.
    UNRELIABLE: the rung's order of trials says too little about the order at the end.
    FRONT: no other trial is better at this rung.
    CONTROL: it runs to its end whatever the rule says, so that the rungs stay measured.
    """

    RULE = "rule"
    EXEMPT = "exempt"
    UNMEASURED = "unmeasured"
    GRACE = "grace"
    UNRELIABLE = "unreliable"
    FRONT = "front"
    CONTROL = "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a trial goes on.

    Args:
        stop: Whether it ends here.
        reason: What decided.
        why: One sentence for people.
        step: Of the rung; None if the trial is at none.
        rule_stops: Whether the pruner's rule alone would stop it; None if it was not asked.
    """

    stop: bool
    reason: Reason
    why: str
    step: int | None = None
    rule_stops: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form for a trial's note."""
        return {
            "step": self.step,
            "stop": self.stop,
            "reason": self.reason.value,
            "rule_stops": self.rule_stops,
            "why": self.why,
        }


class Pruner(Protocol):
    """Decides at each rung whether a trial goes on.

    A pruner is a function of the trials it is shown; it keeps nothing that changes an answer. It never stops a baseline
    or a confirmation, and never a trial that no other search trial of the same fidelity is better than at its rung.
    """

    @property
    def name(self) -> str:
        """Key of `autopeft.pruners.PRUNERS`."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps at which it decides, ascending; empty if it never stops anything."""

    def decide(self, trials: Sequence[Trial], numbers: Sequence[int]) -> list[Decision]:
        """Decide about some trials, each at the last point of its learning curve.

        Args:
            trials: All trials of the study so far in any order, those asked about and their points included.
            numbers: Which trials.

        Returns:
            One decision per number; none depends on which others are asked for.

        Raises:
            KeyError: If there is no trial of a number.
        """
