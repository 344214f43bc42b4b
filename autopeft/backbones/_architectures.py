"""Where the parts of each supported architecture are: the one table to extend for a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autopeft.exceptions import BackboneError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """A linear part that is one of several equal slices of a module's output.

    Args:
        path: Dotted name of the module inside the layer.
        index: Which slice, from 0.
        n_slices: How many there are.
    """

    path: str
    index: int
    n_slices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Names of an architecture's parts in its transformers sequence-classification model.

    Args:
        base: Attribute that holds the model below the head.
        layers: Dotted name of the list of layers inside the base.
        linears: Linear parts (`autopeft.configuration.LINEAR_PARTS`) by dotted name inside a layer.
        norms: Dotted names of a layer's normalisations, in the order of the computation.
        attention: Dotted name of the module, inside a layer, whose forward calls the attention interface.
        entry: Modules of the base whose output is, or is added up to, what enters the first layer.
        head: Dotted names of the modules that are trained as task head; what peft's ``modules_to_save`` would list.
        pooler: Dotted name of a module that checkpoints may lack; it is trained with the head where they do.
        is_decoder: Attention is causal, and the head reads the last token that is not padding.
        has_padded_positions: Positions count tokens from ``pad_token_id + 1`` (RoBERTa), not columns from 0.
    """

    base: str
    layers: str
    linears: Mapping[str, str | Fused]
    norms: tuple[str, ...]
    attention: str
    entry: tuple[str, ...]
    head: tuple[str, ...]
    pooler: str | None = None
    is_decoder: bool = False
    has_padded_positions: bool = field(default=False)


_BERT_LINEARS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_BERT_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


def _bert_like(
    base: str, entry: tuple[str, ...], *, pooler: str | None = None, has_padded_positions: bool = False
) -> Architecture:
    return Architecture(
        base=base,
        layers="encoder.layer",
        linears=_BERT_LINEARS,
        norms=_BERT_NORMS,
        attention="attention.self",
        entry=entry,
        head=("classifier",),
        pooler=pooler,
        has_padded_positions=has_padded_positions,
    )


def _llama_like(*norms: str) -> Architecture:
    return Architecture(
        base="model",
        layers="layers",
        linears={
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.o_proj",
            "up": "mlp.up_proj",
            "gate": "mlp.gate_proj",
            "down": "mlp.down_proj",
        },
        norms=norms,
        attention="self_attn",
        entry=("embed_tokens",),
        head=("score",),
        is_decoder=True,
    )


_LLAMA = _llama_like("input_layernorm", "post_attention_layernorm")

#: Supported architectures by ``model_type`` of the transformers configuration.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": _bert_like("bert", ("embeddings",), pooler="bert.pooler"),
    "roberta": _bert_like("roberta", ("embeddings",), has_padded_positions=True),
    "electra": _bert_like("electra", ("embeddings", "embeddings_project")),
    "distilbert": Architecture(
        base="distilbert",
        layers="transformer.layer",
        linears={
            "q": "attention.q_lin",
            "k": "attention.k_lin",
            "v": "attention.v_lin",
            "o": "attention.out_lin",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
        },
        norms=("sa_layer_norm", "output_layer_norm"),
        attention="attention",
        entry=("embeddings",),
        head=("pre_classifier", "classifier"),
    ),
    "gpt2": Architecture(
        base="transformer",
        layers="h",
        linears={
            "q": Fused(path="attn.c_attn", index=0, n_slices=3),
            "k": Fused(path="attn.c_attn", index=1, n_slices=3),
            "v": Fused(path="attn.c_attn", index=2, n_slices=3),
            "o": "attn.c_proj",
            "up": "mlp.c_fc",
            "down": "mlp.c_proj",
        },
        norms=("ln_1", "ln_2"),
        attention="attn",
        entry=("wte",),
        head=("score",),
        is_decoder=True,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _llama_like("input_layernorm", "self_attn.q_norm", "self_attn.k_norm", "post_attention_layernorm"),
    "gemma": _LLAMA,
    "gemma3_text": _llama_like(
        "input_layernorm",
        "self_attn.q_norm",
        "self_attn.k_norm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}


def architecture_of(config: Any, name: str) -> Architecture:
    """Look up the architecture of a transformers configuration.

    Args:
        config: The configuration.
        name: Of the backbone, for the error message.

    Raises:
        BackboneError: If the architecture is not in the table.
    """
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise BackboneError(
            f"backbone {name}: the architecture {config.model_type!r} is not supported, because autopeft does not know "
            "where its attention and feed-forward linears, norms and head are. "
            f"Supported: {', '.join(sorted(ARCHITECTURES))}."
        )
    return found
