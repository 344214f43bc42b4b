"""Detours in a model's forward pass: start at a layer, stop at a layer, note what enters a layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def start_at(
    layers: nn.ModuleList, first_layer: int, hidden_states: Tensor, entry: Sequence[nn.Module]
) -> Iterator[None]:
    """Within the block, the layer `first_layer` receives `hidden_states` and nothing below it is computed.

    Args:
        layers: The model's layers.
        first_layer: In [0, number of layers]; the number of layers leaves out all of them.
        hidden_states: Shape (rows, t, hidden).
        entry: Embedding modules, left out as well.
    """

    def give(*_: Any, **__: Any) -> Tensor:
        return hidden_states

    def receive(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (hidden_states, *args[1:]), kwargs

    with ExitStack() as stack:
        for module in (*entry, *layers[:first_layer]):
            stack.enter_context(_forward_replaced(module, give))
        if first_layer == 0:
            # What the embeddings give may still be changed on the way (GPT-2 adds positions), so the layer is told.
            handle = layers[0].register_forward_pre_hook(receive, prepend=True, with_kwargs=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def noting_inputs(layers: nn.ModuleList, wanted: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Within the block, what enters the wanted layers is put into the dict, and no layer above them is computed.

    Args:
        layers: The model's layers.
        wanted: Indices in [0, number of layers]; the number of layers stands for the output of the last one.
    """
    notes: dict[int, Tensor] = {}

    def before(index: int) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            notes[index] = args[0]

        return note

    def after(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        notes[len(layers)] = output

    def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states

    with ExitStack() as stack:
        for index in wanted:
            if index < len(layers):
                handle = layers[index].register_forward_pre_hook(before(index))
            else:
                handle = layers[-1].register_forward_hook(after)
            stack.callback(handle.remove)
        for layer in layers[max(wanted, default=0) :]:
            stack.enter_context(_forward_replaced(layer, skip))
        yield notes


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Shadow a module's forward, hooks kept; a forward that was already shadowed comes back afterwards."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before
