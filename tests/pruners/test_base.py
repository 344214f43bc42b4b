from __future__ import annotations

import json

from autopeft.pruners import Decision, Pruner, Reason
from tests.pruners.simulated import pruner


def test_a_decision_is_json_ready() -> None:
    made = Decision(stop=True, reason=Reason.RULE, why="so it is", step=3, rule_stops=True)
    assert json.loads(json.dumps(made.to_dict())) == {
        "step": 3, "stop": True, "reason": "rule", "rule_stops": True, "why": "so it is",
    }  # fmt: skip


def test_only_the_rule_stops() -> None:
    assert [item.value for item in Reason] == [
        "rule", "exempt", "unmeasured", "grace", "unreliable", "front", "control",
    ]  # fmt: skip
    made: Pruner = pruner("pareto")
    assert made.name == "pareto"
