"""The last layer of an encoder computed for the first token alone, where the head reads nothing else.

Of the last layer only the first token's output reaches the head of BERT-like classifiers. Keys and values need every
token; queries, output projection and feed-forward need one. The result and all gradients are those of the full layer,
to the rounding of products of another shape, and the layer's cost falls to about a fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.backbones import Backbone

#: Architectures whose sequence-classification head reads ``hidden_states[:, 0]`` and no other position.
_FIRST_TOKEN_HEADS = frozenset({"bert", "roberta", "electra", "distilbert"})


def reads_first_token(backbone: Backbone) -> bool:
    """Whether the backbone's head reads the first token of each row alone."""
    return backbone.shapes.architecture in _FIRST_TOKEN_HEADS


@contextmanager
def first_token_only(backbone: Backbone) -> Iterator[None]:
    """Within the block the last layer gives (rows, 1, hidden): the first token's output. Does nothing elsewhere.

    Submodules are called as modules, so that modules hooked onto them work as ever.
    """
    forward = _forward_of(backbone)
    if forward is None:
        yield
        return
    layer = backbone.layers[-1]
    layer.forward = MethodType(forward, layer)
    try:
        yield
    finally:
        del layer.forward


def _forward_of(backbone: Backbone) -> Callable[..., Tensor] | None:
    if not reads_first_token(backbone):
        return None
    layer = backbone.layers[-1]
    if hasattr(layer, "ffn"):
        return _distilbert_layer
    if getattr(layer, "is_decoder", False):
        return None
    return _bert_layer


def _bert_layer(layer: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """One BERT, RoBERTa or ELECTRA layer; after Linear q, k, v the attention interface, then post-norm blocks."""
    attention = layer.attention.self
    first = _first(hidden_states)
    context = _attend(
        attention, attention.query(first), attention.key(hidden_states), attention.value(hidden_states), attention_mask
    )
    attended = layer.attention.output(context, first)
    return layer.output(layer.intermediate(attended), attended)


def _distilbert_layer(
    layer: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    attention = layer.attention
    first = _first(hidden_states)
    context = _attend(
        attention,
        attention.q_lin(first),
        attention.k_lin(hidden_states),
        attention.v_lin(hidden_states),
        attention_mask,
    )
    attended = layer.sa_layer_norm(attention.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


def _first(hidden_states: Tensor) -> Tensor:
    """(rows, t, h) -> (rows, 1, h), contiguous: a linear map of a strided view copies its weights for every row."""
    return hidden_states[:, :1].contiguous()


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """(rows, 1, h), (rows, t, h), (rows, t, h) -> (rows, 1, h), by whichever attention function is registered."""

    def heads(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], -1, attention.attention_head_size).transpose(1, 2)

    interface = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    context, _ = interface(
        attention,
        heads(query),
        heads(key),
        heads(value),
        None if mask is None else mask[:, :, :1],
        dropout=0.0,
        scaling=attention.scaling,
    )
    return context.reshape(*query.shape[:2], -1)
