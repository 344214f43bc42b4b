"""LoRA. Oracles: peft's LoRA after three optimizer steps, the formula on dense matrices."""

import peft
import pytest
import torch

from autopeft.modules import inject
from tests.modules.cases import configuration, injected, spec
from tests.modules.peft_twin import copy_into, head_modules, peft_model, peft_trained_logits, trained_logits
from tests.tiny import tiny_batch

#: GPT-2's q, k and v share one Conv1D, where peft has one LoRA for all three: left out here.
SEPARATE = ("bert", "roberta", "distilbert", "electra", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text")
PARTS = {"gpt2": ("o", "up", "down")}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("architecture", [*SEPARATE, "gpt2"])
def test_equals_peft_after_three_steps(backbone_of, architecture, optimizer):
    backbone = backbone_of(architecture)
    parts = PARTS.get(architecture, ("q", "v", "up", "down"))
    ranks = {(layer, part): 1 + (layer + i) % 3 for layer in (0, 2) for i, part in enumerate(parts)}
    chosen = configuration(*((layer, part, spec("lora", rank, scale=1.5)) for (layer, part), rank in ranks.items()))
    paths = {backbone.linear(layer, part).path: (layer, part) for layer, part in ranks}
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        target_modules=list(paths),
        rank_pattern={path: ranks[where] for path, where in paths.items()},
        alpha_pattern={path: 1.5 * ranks[where] for path, where in paths.items()},
        modules_to_save=head_modules(backbone),
        fan_in_fan_out=architecture == "gpt2",
    )
    model = peft_model(backbone, config)
    with inject(backbone, [chosen], seeds=[3]) as injection:
        initial = injection.state_dict(0)

    def wanted(name):
        path, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
        layer, part = paths.get(path, (None, None))
        return initial[f"layers.{layer}.{part}.lora.{rest[0]}"] if rest else None

    assert copy_into(model, wanted) == sum(v.numel() for k, v in initial.items() if ".lora." in k)
    _, ours = trained_logits(backbone, chosen, initial, optimizer)
    before = backbone.forward(**tiny_batch())
    theirs = peft_trained_logits(model, optimizer)
    assert (theirs - before).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_initial_values_are_pefts(bert):
    """A is uniform with peft's bound, B zero."""
    with inject(bert, [configuration((0, "down", spec("lora", 64)))], seeds=[0]) as injection:
        state = injection.state_dict(0)
    a, b = state["layers.0.down.lora.A"], state["layers.0.down.lora.B"]
    assert a.shape == (64, 64)
    assert b.shape == (32, 64)
    assert b.abs().max() == 0
    bound = 1 / 64**0.5
    assert bound * 0.99 < a.abs().max() <= bound
    assert abs(a.mean().item()) < 4 * bound / 3**0.5 / a.numel() ** 0.5
    assert a.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(("architecture", "part"), [("bert", "q"), ("gpt2", "k"), ("gpt2", "down"), ("llama", "gate")])
def test_is_the_formula(backbone_of, architecture, part):
    """Oracle: W x + b + s B A x with dense matrices, on the part's slice of the module's output."""
    backbone = backbone_of(architecture)
    site = backbone.linear(1, part)
    x = torch.randn(2, 5, site.shape.in_features, generator=torch.Generator().manual_seed(0))
    plain = site.module(x)
    with injected(backbone, configuration((1, part, spec("lora", 3, scale=0.6)))) as injection:
        state = injection.state_dict(0)
        found = site.module(x)
    delta = 0.6 * x @ (state[f"layers.1.{part}.lora.B"] @ state[f"layers.1.{part}.lora.A"]).T
    wanted = plain.clone()
    wanted[..., site.start : site.stop] += delta
    torch.testing.assert_close(found, wanted)


def test_dropout_is_applied_to_the_input_in_training_only(bert):
    """Oracle: with all of B one and scale one, the output change is a sum over kept inputs, rescaled by 1/(1-p)."""
    site = bert.linear(0, "q")
    x = torch.ones(64, 4, 32)
    plain = site.module(x)
    with inject(bert, [configuration((0, "q", spec("lora", 1, scale=1.0, dropout=0.25)))], seeds=[0]) as injection:
        state = injection.state_dict(0)
        state["layers.0.q.lora.A"].fill_(1.0)
        state["layers.0.q.lora.B"].fill_(1.0)
        injection.load_state_dict(0, state)
        injection.begin_batch(0, training=False)
        torch.testing.assert_close(site.module(x) - plain, torch.full_like(plain, 32.0), rtol=1e-4, atol=1e-4)
        injection.begin_batch(0, training=True)
        kept = (site.module(x) - plain)[..., 0] * 0.75
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-3)
    # 8,192 inputs, each kept with probability 3/4: four standard errors.
    assert abs(kept.sum().item() / 8192 - 0.75) < 4 * (0.75 * 0.25 / 8192) ** 0.5
    assert kept.std() > 1
