"""What the program's words are called on every page."""

from __future__ import annotations

from autopeft.study import TrialState

from .. import queries

STATES = {
    TrialState.WAITING.value: "waiting",
    TrialState.RUNNING.value: "running",
    TrialState.COMPLETE.value: "complete",
    TrialState.PRUNED.value: "stopped early",
    TrialState.FAILED.value: "failed",
}
STATE_HELP = (
    "Waiting: no worker has it yet. Stopped early: the pruner ended its training at a rung, one of the steps at which "
    "it compares trials, because it would not have reached the front."
)
ROLES = {
    queries.Role.FRONT.value: "on the front",
    queries.Role.DOMINATED.value: "dominated",
    queries.Role.INFEASIBLE.value: "infeasible",
    queries.Role.PRUNED.value: "stopped early",
    queries.Role.BASELINE.value: "baseline",
}
ROLE_HELP = (
    "What it is in the picture of the front. On the front: no other trial is better in every objective. Dominated: "
    "another one is. Infeasible: it breaks the budget or a constraint."
)
