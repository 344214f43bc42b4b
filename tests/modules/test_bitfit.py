"""BitFit. Oracle: a copy of the model whose own biases are trained by the same steps."""

import pytest
import torch
import torch.nn.functional as F

from autopeft.modules import inject
from tests.modules.adapter_twin import TARGETS, unfrozen_twin
from tests.modules.cases import configuration, spec, train_steps
from tests.modules.peft_twin import trained_logits
from tests.tiny import tiny_backbone, tiny_batch

WITH_BIASES = ("bert", "roberta", "distilbert", "electra", "gpt2", "qwen2")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("architecture", WITH_BIASES)
def test_equals_training_the_biases_themselves(backbone_of, architecture, optimizer):
    backbone = backbone_of(architecture)
    chosen = configuration((0, "bias", spec("bitfit")), (2, "bias", spec("bitfit")))
    with inject(backbone, [chosen], seeds=[0]) as injection:
        initial = injection.state_dict(0)
    model = unfrozen_twin(backbone)
    layers = dict(model.named_modules())
    names = {
        name for name, module in backbone.model.named_modules() if module in (backbone.layers[0], backbone.layers[2])
    }
    biases = [
        parameter.requires_grad_()
        for prefix in names
        for name, parameter in layers[prefix].named_parameters()
        if name.endswith("bias")
    ]
    head = [p.requires_grad_() for path in backbone.head_paths for p in model.get_submodule(path).parameters()]
    assert sum(bias.numel() for bias in biases) == sum(v.numel() for k, v in initial.items() if "bitfit" in k)
    _, ours = trained_logits(backbone, chosen, initial, optimizer)
    before = model(**tiny_batch()).logits.detach()
    train_steps([*biases, *head], lambda: F.cross_entropy(model(**tiny_batch()).logits, TARGETS), optimizer=optimizer)
    theirs = model(**tiny_batch()).logits.detach()
    assert (theirs - before).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma"])
def test_is_nothing_where_there_are_no_biases(backbone_of, architecture):
    backbone = backbone_of(architecture)
    with inject(backbone, [configuration((0, "bias", spec("bitfit")))], seeds=[0]) as injection:
        assert injection.candidate_parameter_count(0) == 0
        assert all(item.name.startswith("head.") for item in injection.parameters)


def test_small_changes_survive_bfloat16():
    """A bias of 1 plus 0.002 is 1 in bfloat16, but an output near 0 moves by 0.002."""
    backbone = tiny_backbone("bert", dtype=torch.bfloat16)
    module = backbone.linear(0, "o").module
    with torch.no_grad():
        module.bias.fill_(1.0)
        module.weight.zero_()
        module.weight[:, 0] = -1.0
    x = torch.zeros(1, 1, 32, dtype=torch.bfloat16)
    x[..., 0] = 1.0
    with inject(backbone, [configuration((0, "bias", spec("bitfit")))], seeds=[0]) as injection:
        state = injection.state_dict(0)
        state["layers.0.bias.bitfit.o"].fill_(0.002)
        injection.load_state_dict(0, state)
        assert module(x)[0, 0, 0].item() == pytest.approx(0.002, rel=0.01)
