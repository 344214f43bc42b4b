from __future__ import annotations

import pytest
import torch

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.modules import inject
from autopeft.training import _packed_linear
from autopeft.training._packed_linear import PackedLinears
from tests.tiny import ARCHITECTURES, tiny_backbone, tiny_batch

pytestmark = pytest.mark.skipif(not _packed_linear._is_available(), reason="this build of torch lacks oneDNN's linear")


def linears(backbone):
    modules = [backbone.linear(1, part).module for part in ("q", "v", "o", "up", "down")]
    return [module for module in modules if isinstance(module, torch.nn.Linear)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradient_equal_the_plain_map(dtype):
    # Oracle: torch.nn.functional.linear and autograd.
    backbone = tiny_backbone("bert", dtype=dtype)
    for module in linears(backbone):
        x = torch.randn(3, 5, module.in_features, generator=torch.Generator().manual_seed(0)).to(dtype)
        ours, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected = module(plain)
        with PackedLinears(backbone).installed():
            got = module(ours)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 2**-7, "atol": 2**-7}
        torch.testing.assert_close(got, expected, **tolerance)
        weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        got.backward(weight)
        expected.backward(weight)
        torch.testing.assert_close(ours.grad, plain.grad, **tolerance)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_same_logits(architecture):
    backbone, batch = tiny_backbone(architecture), tiny_batch(rows=5)
    expected = backbone.forward(**batch)
    with PackedLinears(backbone).installed():
        got = backbone.forward(**batch)
        assert all("forward" in module.__dict__ for module in linears(backbone))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not any("forward" in module.__dict__ for module in linears(backbone))
    assert torch.equal(backbone.forward(**batch), expected)


def test_weights_packed_in_evaluation_serve_training():
    backbone = tiny_backbone("bert")
    packed, module = PackedLinears(backbone), backbone.linear(0, "q").module
    with packed.installed():
        with torch.inference_mode():
            module(torch.ones(2, 32))
        x = torch.ones(2, 32, requires_grad=True)
        module(x).sum().backward()
    torch.testing.assert_close(x.grad, module.weight.sum(0).expand(2, 32), rtol=1e-5, atol=1e-5)


def test_other_input_types_go_the_plain_way():
    backbone = tiny_backbone("bert", dtype=torch.bfloat16)
    module = backbone.linear(0, "q").module
    with (
        PackedLinears(backbone).installed(),
        pytest.raises(RuntimeError, match="dtype"),
    ):
        module(torch.ones(2, 32))


@pytest.mark.parametrize("reason", ["memory", "operators"])
def test_nothing_changes_where_packing_is_impossible(monkeypatch, reason):
    if reason == "memory":
        monkeypatch.setattr(_packed_linear, "free_memory_bytes", lambda _: 1000)
    else:
        monkeypatch.setattr(_packed_linear, "_multiply", lambda *_: torch.zeros(3, 4))
    backbone = tiny_backbone("bert")
    with PackedLinears(backbone).installed():
        assert not any("forward" in module.__dict__ for module in linears(backbone))


def test_modules_that_replace_the_map_win():
    backbone, batch = tiny_backbone("bert"), tiny_batch()
    full = Configuration.make([(Site(layer=1, part="up"), ModuleSpec.make("full"))], learning_rate=1e-3)
    expected = backbone.forward(**batch)
    with PackedLinears(backbone).installed(), inject(backbone, [full], seeds=[0]) as injection:
        injection.begin_batch(0, training=False)
        for item in injection.parameters:
            if not item.name.startswith("head."):
                item.tensor.detach().zero_()
        # With the trained copy at zero the output must change: it is the copy that computes.
        assert not torch.allclose(backbone.forward(**batch), expected)
    assert torch.equal(backbone.forward(**batch), expected)
