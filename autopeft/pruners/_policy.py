"""What all pruners have in common: whom they spare, and when they step back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autopeft.objectives import Constraint, Objective
from autopeft.pruners._base import Decision, Reason
from autopeft.pruners._calibration import MIN_RANKED, rank_correlation
from autopeft.pruners._rules import Rule
from autopeft.pruners._values import KnownCost, RungTable, measured_cost
from autopeft.study import Fidelity, Trial, TrialKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Caution:
    """When a pruner may stop trials at all.

    Args:
        min_completed: Search trials that must have come to their end before a rung is judged, >= 5.
        min_correlation: A rung is not used once the 95 % interval of its rank correlation (Kendall's tau) with the end
            lies below this.
        control_every: Of so many consecutive trial numbers one runs to its end whatever the rule says, >= 2; without
            such trials nobody could tell what stopping has cost.
    """

    min_completed: int = 6
    min_correlation: float = 0.3
    control_every: int = 5

    def __post_init__(self) -> None:
        if self.min_completed < MIN_RANKED or self.control_every < 2:
            raise ValueError(f"`min_completed >= {MIN_RANKED}` and `control_every >= 2` must hold, but got {self}.")

    def is_control(self, number: int) -> bool:
        """Whether a trial runs to its end in any case."""
        return number % self.control_every == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CautiousPruner:
    """Applies a rule to those search trials that it can be applied to.

    Args:
        name: Key of `autopeft.pruners.PRUNERS`.
        rule: Decides about a trial that is neither spared nor at a rung that says too little.
        objectives: Of the study.
        fidelity: Of its search trials.
        rungs: Steps before the run's end, ascending.
        caution: When it may stop trials.
        constraints: Of the study.
        known: Tells costs that are known before training.
    """

    name: str
    rule: Rule
    objectives: tuple[Objective, ...]
    fidelity: Fidelity
    rungs: tuple[int, ...]
    caution: Caution = Caution()
    constraints: tuple[Constraint, ...] = ()
    known: KnownCost = measured_cost

    def decide(self, trials: Sequence[Trial], numbers: Sequence[int]) -> list[Decision]:
        found = {item.number: item for item in trials}
        tables: dict[int, tuple[RungTable, Decision | None]] = {}

        def at(step: int) -> tuple[RungTable, Decision | None]:
            if step not in tables:
                table = RungTable.of(
                    trials,
                    step=step,
                    objectives=self.objectives,
                    fidelity=self.fidelity,
                    constraints=self.constraints,
                    known=self.known,
                )
                tables[step] = table, self._held_back(table)
            return tables[step]

        return [self._decide(found[number], at) for number in numbers]

    def _decide(self, trial: Trial, at: Callable[[int], tuple[RungTable, Decision | None]]) -> Decision:
        if trial.kind is not TrialKind.SEARCH or trial.draft.fidelity != self.fidelity:
            return Decision(stop=False, reason=Reason.EXEMPT, why=f"only search trials are stopped, not a {trial.kind}")
        step = trial.curve[-1].step if trial.curve else None
        if step is None or step not in self.rungs:
            return Decision(stop=False, reason=Reason.EXEMPT, why="it is at no rung", step=step)
        table, held_back = at(step)
        if trial.number not in table.numbers:
            return self._unmeasured(trial, step)
        return held_back or self._judge(table, trial.number)

    def _unmeasured(self, trial: Trial, step: int) -> Decision:
        point = trial.point(step)
        known = () if point is None else point.metrics
        missing = [item.name for item in self.objectives if item.name not in known and not item.is_known]
        return Decision(
            stop=False,
            reason=Reason.UNMEASURED,
            why=f"{', '.join(missing) or 'an objective'} is not measured at rungs, so nobody can tell who is better",
            step=step,
        )

    def _held_back(self, table: RungTable) -> Decision | None:
        """Why the rung decides nothing yet, or no longer; None if it may."""
        done = table.is_complete
        n, wanted = int(done.sum()), self.caution.min_completed
        if n < wanted:
            why = f"{n} of the {wanted} completed trials are there that it takes to judge the rung"
            return Decision(stop=False, reason=Reason.GRACE, why=why, step=table.step)
        for j in np.flatnonzero(~table.is_exact):
            found = rank_correlation(table.here[done, j], table.end[done, j])
            name = table.objectives[j].name
            if found.tau is None:
                why = f"all completed trials are equal in {name}, at the rung or at their end"
                return Decision(stop=False, reason=Reason.UNRELIABLE, why=why, step=table.step)
            if found.high is not None and found.high < self.caution.min_correlation:
                why = (
                    f"{name} at this rung hardly ranks trials as they end: Kendall's tau {found.tau:.2f} "
                    f"[{found.low:.2f}, {found.high:.2f}] over {found.n} trials"
                )
                return Decision(stop=False, reason=Reason.UNRELIABLE, why=why, step=table.step)
        return None

    def _judge(self, table: RungTable, number: int) -> Decision:
        row, step = table.row(number), table.step
        if table.is_on_front(row):
            why = "no other trial is better at this rung"
            return Decision(stop=False, reason=Reason.FRONT, why=why, step=step, rule_stops=False)
        verdict = self.rule.judge(table, row)
        if verdict.stop and self.caution.is_control(number):
            why = (
                f"one in {self.caution.control_every} trials runs to its end to measure the rungs; else: {verdict.why}"
            )
            return Decision(stop=False, reason=Reason.CONTROL, why=why, step=step, rule_stops=True)
        return Decision(stop=verdict.stop, reason=Reason.RULE, why=verdict.why, step=step, rule_stops=verdict.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPruner:
    """Never stops anything."""

    name: str = "none"
    rungs: tuple[int, ...] = ()

    def decide(self, trials: Sequence[Trial], numbers: Sequence[int]) -> list[Decision]:
        why = "nothing is stopped early in this study"
        return [Decision(stop=False, reason=Reason.EXEMPT, why=why) for _ in numbers]
