from __future__ import annotations

import numpy as np
import pytest
import torch

from autopeft.configuration import ModuleSpec
from autopeft.exceptions import UsageError
from autopeft.modules import inject
from autopeft.rewards import REWARDS
from autopeft.rewards import _activation_density as density
from autopeft.rewards._activation_density import ActivationDensity
from tests.rewards.candidates import on_candidate, placed
from tests.tiny import tiny_backbone
from tests.training.toys import lora, toy_task


def by_hand(outcome, configuration, texts, threshold):
    """Oracle: each text alone, the block's own activation module's output, in BERT."""
    backbone = tiny_backbone("bert")
    active = seen = 0
    outputs = []
    with inject(backbone, [configuration], seeds=[7]) as injection:
        injection.load_state_dict(0, outcome.state)
        injection.begin_batch(0, training=False)
        handles = [
            layer.intermediate.register_forward_hook(lambda _, __, out: outputs.append(out))
            for layer in backbone.layers
        ]
        for text in texts:
            backbone.forward(**backbone.tokenizer(text, return_tensors="pt"))
        for handle in handles:
            handle.remove()
    for out in outputs:
        active += int((out.abs() > threshold).sum())
        seen += out.numel()
    return active / seen


def test_density_by_hand():
    configuration = lora((0, 1, 2), parts=("up", "q"))
    task = toy_task(n_train=100)
    found, outcome = on_candidate(REWARDS["activation_density"].measure, configuration, task=task)
    assert found.value == pytest.approx(by_hand(outcome, configuration, task.search.texts, 0.1), abs=1e-4)
    # All layers see the same tokens, so the whole is the mean.
    assert found.value == pytest.approx(np.mean([found.details[f"layer_{k}"] for k in range(3)]))


def test_only_text_counts_not_padding_and_only_so_many_texts():
    # Alone, the longest text has no padding at all.
    task = toy_task(n_train=100)
    found, outcome = on_candidate(ActivationDensity(max_texts=3).measure, lora((1,)), task=task)
    assert found.value == pytest.approx(by_hand(outcome, lora((1,)), task.search.texts[:3], 0.1), abs=1e-4)


def test_relu_counts_exact_zeros(monkeypatch):
    def look(candidate):
        candidate.backbone.model.config.hidden_act = "relu"
        for layer in candidate.backbone.layers:
            layer.intermediate.intermediate_act_fn = torch.nn.ReLU()
        return REWARDS["activation_density"].measure(candidate), ActivationDensity(threshold=5.0).measure(candidate)

    (found, other), _ = on_candidate(look)
    assert found == other
    assert 0.2 < found.value < 0.8


def test_threshold_orders_densities():
    def look(candidate):
        return [ActivationDensity(threshold=t).measure(candidate).value for t in (0.0, 0.01, 0.1, 1.0)]

    values, _ = on_candidate(look)
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.99 > values[-1]


@pytest.mark.parametrize("architecture", ["distilbert", "gpt2", "llama"])
def test_other_architectures(architecture):
    found, _ = on_candidate(REWARDS["activation_density"].measure, lora((1,)), architecture=architecture)
    assert 0 < found.value < 1


@pytest.mark.parametrize(
    "module",
    [
        (0, "ffn", ModuleSpec.make("mix_lora", 2, experts=2)),
        (0, "ffn", ModuleSpec.make("parallel_adapter", 4)),
        (0, "attention", ModuleSpec.make("prefix", 3)),
        (0, "down", ModuleSpec.make("ia3")),
        (0, "up", ModuleSpec.make("full")),
    ],
    ids=lambda module: module[2].type,
)
def test_every_kind_of_module_can_be_in_the_way(module):
    found, _ = on_candidate(REWARDS["activation_density"].measure, placed(module))
    assert 0 < found.value < 1


def test_nothing_stays_on_the_modules():
    def look(candidate):
        REWARDS["activation_density"].measure(candidate)
        return [len(m._forward_pre_hooks) for m in candidate.backbone.model.modules()]

    hooks, _ = on_candidate(look)
    assert set(hooks) == {0}


@pytest.mark.parametrize("options", [{"threshold": -1.0}, {"max_texts": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError, match=f"activation_density.{next(iter(options))}"):
        density.ActivationDensity(**options)
