"""Frozen linear maps on a CPU, with their weights packed once for oneDNN.

Weights that never change can be brought into the layout of the fastest kernel ahead of time, for both directions. In
bfloat16 that spares a reordering per product (a fifth to a half of the time, the same bits); in float32 it also leads
to oneDNN's kernels instead of the default library's, which on some processors are twice as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autopeft.backbones import Backbone
from autopeft.configuration import LINEAR_PARTS
from autopeft.training._memory import free_memory_bytes

_DTYPES = (torch.float32, torch.bfloat16)
#: Rows that the packed layout is tuned for; the kernels are fast for any other number too.
_ROWS = 256
#: Packing both directions doubles the layers' weights; it must not take more than this share of what is free.
_MEMORY_SHARE = 0.25


class PackedLinears:
    """Packed copies of a backbone's linear maps, kept as long as this object.

    Args:
        backbone: Frozen; on any device. Where packing is not possible or does not fit, `installed` does nothing.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._linears: dict[nn.Linear, _PackedLinear] = {}
        if backbone.device.type != "cpu" or backbone.dtype not in _DTYPES or not _is_available():
            return
        linears = _frozen_linears(backbone)
        size = sum(2 * module.weight.numel() * module.weight.element_size() for module in linears)
        if size <= _MEMORY_SHARE * free_memory_bytes(backbone.device):
            self._linears = {module: _PackedLinear(module) for module in linears}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block, the linear maps are computed with packed weights; modules' hooks work as ever."""
        for module, packed in self._linears.items():
            module.__dict__["forward"] = packed.forward
        try:
            yield
        finally:
            for module in self._linears:
                module.__dict__.pop("forward", None)


def _frozen_linears(backbone: Backbone) -> list[nn.Linear]:
    found: dict[nn.Linear, None] = {}
    for layer in range(backbone.shapes.n_layers):
        for part in LINEAR_PARTS:
            site = backbone.linear(layer, part)
            if site is not None and isinstance(site.module, nn.Linear) and "forward" not in site.module.__dict__:
                found[site.module] = None
    return list(found)


class _PackedLinear:
    """One linear map; each direction is packed when it is first needed."""

    def __init__(self, module: nn.Linear) -> None:
        self._weight = module.weight
        self._bias = module.bias
        self._packed: Tensor | None = None
        self._packed_transposed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """X W^T + b."""
        if x.dtype != self._weight.dtype:
            return F.linear(x, self._weight, self._bias)
        if x.requires_grad and torch.is_grad_enabled():
            output: Tensor = _Product.apply(x, self)
            return output
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        if self._packed is None:
            self._packed = _pack(self._weight)
        return _multiply(x, self._packed, self._bias)

    def product_transposed(self, gradient: Tensor) -> Tensor:
        """G W."""
        if self._packed_transposed is None:
            self._packed_transposed = _pack(self._weight.t().contiguous())
        return _multiply(gradient, self._packed_transposed, None)


class _Product(torch.autograd.Function):
    """A linear map of which only the input is differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: _PackedLinear) -> Tensor:
        ctx.linear = linear
        return linear.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.product_transposed(gradients[0].contiguous()), None


def _pack(weight: Tensor) -> Tensor:
    # Packed weights outlive the evaluation that may have asked for them first: no inference tensors.
    with torch.inference_mode(False), torch.no_grad():
        return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
    return product(x, packed, bias, "none", [], "")


def _is_available() -> bool:
    """Whether this build of torch has the operators, and they compute what they should."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = torch.ones(3, 8), torch.arange(32.0).view(4, 8), torch.arange(4.0)
    try:
        return torch.equal(_multiply(x, _pack(weight), bias), F.linear(x, weight, bias))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
