"""Heads. Oracles: the backbone's own head, and each candidate's head as a plain product."""

import pytest
import torch

from autopeft.modules import inject
from tests.modules.cases import configuration, disturb, together
from tests.tiny import ARCHITECTURES, tiny_backbone, tiny_batch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_state_loaded_into_the_model_gives_the_same_logits(backbone_of, architecture):
    """Oracle: stock transformers with the trained head as its own."""
    backbone, batch = tiny_backbone(architecture, n_labels=3), tiny_batch()
    with inject(backbone, [configuration()] * 2, seeds=[0, 1]) as injection:
        disturb(injection)
        blocks = backbone.forward(**together([batch, batch])).chunk(2)
        states = [injection.state_dict(candidate) for candidate in range(2)]
    for block, state in zip(blocks, states, strict=True):
        loaded = backbone.model.load_state_dict({k.removeprefix("head."): v for k, v in state.items()}, strict=False)
        assert not loaded.unexpected_keys
        torch.testing.assert_close(backbone.forward(**batch), block)


def test_is_computed_in_float32_on_a_bfloat16_backbone():
    """Logits that bfloat16 could not tell apart: 100 and 100.1."""
    backbone = tiny_backbone("bert", dtype=torch.bfloat16)
    with inject(backbone, [configuration()], seeds=[0]) as injection:
        state = injection.state_dict(0)
        state["head.classifier.weight"].zero_()
        state["head.classifier.bias"].copy_(torch.tensor([100.0, 100.1]))
        injection.load_state_dict(0, state)
        logits = backbone.forward(**tiny_batch())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[0], torch.tensor([100.0, 100.1]))


def test_starts_from_exact_values_on_a_bfloat16_backbone():
    """The head of a bfloat16 model was rounded; `head_state` was not."""
    backbone = tiny_backbone("bert", dtype=torch.bfloat16)
    exact = {name: torch.full_like(value, 0.1) for name, value in backbone.head_state().items()}
    backbone.head_state = lambda: exact
    with inject(backbone, [configuration()], seeds=[0]) as injection:
        assert all(torch.equal(value, exact[name[5:]]) for name, value in injection.state_dict(0).items())
