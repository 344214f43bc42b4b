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
PLACE_HELP = (
    "q, k, v, o: attention's matrices for query, key, value and output. up, gate, down: those of the feed-forward "
    "block. attention, ffn: the whole block. norm, bias: a layer's scales and offsets. emb.: the embedding, below all "
    "layers. lora: a low-rank change of a matrix; adapter: a narrow network beside or behind a block; prefix: learned "
    "inputs of attention; ia3, ssf: learned scales; bitfit: the biases themselves; sparse: a few entries of a matrix. "
    "The file docs/methods.md says more."
)
FRONT_HELP = (
    "The front: trials of which no other one is better in every objective. Its knee: the member farthest above the "
    "line between the front's ends. Recommended: what the search chose, by the search split alone. Search split: "
    "examples that trials are compared on, so their scores are optimistic. Report split: examples that nothing is "
    "chosen by."
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
