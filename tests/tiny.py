"""Tiny randomly initialised models, backbones and saved folders, built in code: no download, the same on every call."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from autopeft.backbones import Backbone

ENCODERS = ("bert", "roberta", "distilbert", "electra")
DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text")
ARCHITECTURES = (*ENCODERS, *DECODERS)

VOCABULARY = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase),
    *string.digits, *(f"##{digit}" for digit in string.digits),
    *".,;:!?()-'/", "good", "bad", "the", "a##", "is", "not", "very", "file", "test", "list", "number",
)  # fmt: skip
PAD, UNK, CLS, SEP = 0, 1, 2, 3
MAX_POSITIONS = 64

_COMMON = {
    "vocab_size": len(VOCABULARY),
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
    "initializer_range": 0.1,
}
_SHAPES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": MAX_POSITIONS},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_inner": 64, "n_positions": MAX_POSITIONS},
    # An embedding size of its own puts a projection between the embeddings and the first layer.
    "electra": {"embedding_size": 16},
    # Positions start at padding_idx + 1.
    "roberta": {"max_position_embeddings": MAX_POSITIONS + 1},
    # One global layer among sliding ones, and a window shorter than the tests' texts.
    "gemma3_text": {"sliding_window": 4, "sliding_window_pattern": 3, "query_pre_attn_scalar": 8},
}
_ENCODER_SHAPE = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_POSITIONS,
}
_LAYERS_NAME = {"distilbert": "n_layers", "gpt2": "n_layer"}


def tiny_config(architecture: str, n_labels: int = 2, n_layers: int = 3, **config: Any) -> Any:
    """A configuration of width 32 with 4 heads (2 for keys and values in the Llama-likes)."""
    shape: dict[str, Any] = {} if architecture in _LAYERS_NAME else dict(_ENCODER_SHAPE)
    if architecture in DECODERS and architecture != "gpt2":
        shape |= {"num_key_value_heads": 2, "head_dim": 8}
    shape |= _SHAPES.get(architecture, {})
    shape[_LAYERS_NAME.get(architecture, "num_hidden_layers")] = n_layers
    return AutoConfig.for_model(architecture, **{**_COMMON, **shape, "num_labels": n_labels, **config})


def tiny_model(
    architecture: str, n_labels: int = 2, n_layers: int = 3, seed: int = 0, **config: Any
) -> PreTrainedModel:
    """A sequence-classification model with random weights everywhere, norms and biases included.

    Args:
        architecture: One of `ARCHITECTURES`.
        n_labels: Outputs.
        n_layers: Transformer layers.
        seed: Same seed, same weights.
        config: Entries of the transformers configuration that override the tiny ones.
    """
    settings = tiny_config(architecture, n_labels, n_layers, **config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(settings, attn_implementation="sdpa")
        with torch.no_grad():
            for parameter in model.parameters():
                # Zero biases and unit norms would hide a part that is read from the wrong place.
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def tiny_tokenizer(architecture: str = "bert", *, has_pad_token: bool = True) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer over letters and a few words; encoders get ``[CLS] text [SEP] pair [SEP]``."""
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    is_encoder = architecture in ENCODERS
    if is_encoder:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
        )
    names = ["input_ids", "attention_mask"]
    if architecture in ("bert", "electra"):
        names.insert(1, "token_type_ids")
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"} if is_encoder else {}
    if has_pad_token:
        special["pad_token"] = "[PAD]"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_input_names=names,
        model_max_length=MAX_POSITIONS,
        **special,
    )


def tiny_folder(
    folder: Path, architecture: str, n_labels: int = 2, n_layers: int = 3, seed: int = 0, **config: Any
) -> Path:
    """Save a tiny pretrained model without task head, with its tokenizer, as hub downloads look; returns `folder`."""
    model = tiny_model(architecture, n_labels, n_layers, seed, **config)
    model.base_model.save_pretrained(folder)
    tiny_tokenizer(architecture).save_pretrained(folder)
    return folder


def tiny_backbone(
    architecture: str,
    n_labels: int = 2,
    n_layers: int = 3,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Backbone:
    """A `Backbone` around a `tiny_model`, with a tokenizer."""
    from autopeft.backbones import wrap_model

    model = tiny_model(architecture, n_labels, n_layers, seed, **config).to(dtype)
    return wrap_model(model, tiny_tokenizer(architecture), name=f"tiny-{architecture}")


def tiny_batch(rows: int = 4, length: int = 12, seed: int = 0, *, pad_left: bool = False) -> dict[str, torch.Tensor]:
    """Random ids with padding: row i has ``length - i % 4`` tokens, at least one.

    Returns:
        ``input_ids`` and ``attention_mask``, both (rows, length), int64.
    """
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(SEP + 2, len(VOCABULARY), (rows, length), generator=generator)
    lengths = torch.tensor([max(1, length - i % 4) for i in range(rows)])
    is_token = torch.arange(length) < lengths[:, None]
    if pad_left:
        is_token = is_token.flip(1)
    return {"input_ids": torch.where(is_token, input_ids, PAD), "attention_mask": is_token.long()}
