from __future__ import annotations

import json
from importlib import metadata

import torch

from autopeft.training._environment import environment


def test_facts_are_json_ready_and_true():
    facts = environment(device=torch.device("cpu"), dtype=torch.bfloat16, backbone_hash="b", task_hash="t")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["precision"] == "bfloat16"
    assert (facts["backbone_hash"], facts["task_hash"]) == ("b", "t")
    assert facts["torch"] == metadata.version("torch")
