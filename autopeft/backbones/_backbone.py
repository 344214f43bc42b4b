"""A frozen pretrained transformer with its sites, its tokenizer and a forward pass that can start at any layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autopeft.backbones._architectures import architecture_of
from autopeft.backbones._detour import noting_inputs, start_at
from autopeft.backbones._sites import LinearSite, find_sites
from autopeft.configuration import LINEAR_PARTS, BackboneShapes
from autopeft.exceptions import BackboneError, ConfigurationError


class Backbone:
    """A frozen transformers sequence-classification model.

    Every parameter has ``requires_grad=False`` and the model is in evaluation mode for good: the backbone's own
    dropout is off, because stored hidden states stand for what a layer receives at every step.

    Build one with `load_backbone` or `wrap_model`.

    Args:
        model: A transformers ``*ForSequenceClassification`` model.
        tokenizer: Its tokenizer; None if inputs come as ids.
        name: What the user called it.
        source: Where it came from, in words.
        content_hash: SHA-256 over configuration and weights.
        head_paths: Dotted names of the modules trained as task head; None takes the architecture's.
        head_state: The head's float32 initial values; None reads them off the model.
        folder: Folder that stock transformers loads the backbone from; None for a wrapped model.
        hub_id: Its id on the hub; None if it is not known.

    Raises:
        BackboneError: If the architecture is not supported or the model is not laid out as expected.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        name: str,
        source: str,
        content_hash: str,
        head_paths: tuple[str, ...] | None = None,
        head_state: dict[str, Tensor] | None = None,
        folder: Path | None = None,
        hub_id: str | None = None,
    ) -> None:
        self._architecture = architecture_of(model.config, name)
        self.head_paths = self._architecture.head if head_paths is None else head_paths
        self._sites = find_sites(model, self._architecture, self.head_paths, name)
        self.name = name
        self.source = source
        self.content_hash = content_hash
        self.folder = folder
        self.hub_id = hub_id
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.pad_token_id = _settle_padding(
            model, tokenizer, name, has_padded_positions=self._architecture.has_padded_positions
        )
        self._head_state = {
            key: value.detach().to("cpu", torch.float32, copy=True)
            for key, value in (self._current_head() if head_state is None else head_state).items()
        }

    @property
    def architecture(self) -> str:
        """``model_type`` of the transformers configuration."""
        return self.shapes.architecture

    @property
    def is_decoder(self) -> bool:
        """Whether the architecture reads left to right and its head the last token."""
        return self._architecture.is_decoder

    @property
    def shapes(self) -> BackboneShapes:
        """What counting parameters needs; equal to what `describe_backbone` gives."""
        return self._sites.shapes

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return next(self.layers[0].parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.layers[0].parameters()).device

    @property
    def n_labels(self) -> int:
        """Outputs of the head; 1 is regression."""
        return int(self.model.config.num_labels)

    @property
    def max_positions(self) -> int:
        """Longest input the model has positions for, in tokens, prefixes that shift positions included."""
        longest = int(self.model.config.max_position_embeddings)
        return longest - self.pad_token_id - 1 if self._architecture.has_padded_positions else longest

    @property
    def layers(self) -> nn.ModuleList:
        """The live list of transformer layers, bottom first."""
        return self._sites.layers

    @property
    def embeddings(self) -> tuple[tuple[str, nn.Module], ...]:
        """(path, module) of all that has parameters outside layers and head: what ``full`` at ``embedding`` trains.

        Besides embeddings these are, where the model has them, a final norm and a pooler.
        """
        return self._sites.embeddings

    def linear(self, layer: int, part: str) -> LinearSite | None:
        """A linear part of a layer; None if the architecture has no such part.

        Args:
            layer: Index in [0, number of layers).
            part: One of `autopeft.configuration.LINEAR_PARTS`.

        Raises:
            ConfigurationError: If there is no such layer, or `part` is no linear part.
        """
        if part not in LINEAR_PARTS:
            raise ConfigurationError(f"a linear part is one of {', '.join(LINEAR_PARTS)}, but got {part!r}.")
        return self._layer(layer).linears.get(part)

    def norms(self, layer: int) -> list[tuple[str, nn.Module]]:
        """(path, module) of a layer's normalisations, in the order of the computation."""
        return list(self._layer(layer).norms)

    def attention(self, layer: int) -> nn.Module:
        """The module of a layer whose forward calls transformers' attention interface."""
        return self._layer(layer).attention

    def attention_path(self, layer: int) -> str:
        """Dotted name of `attention` in the model."""
        return self._layer(layer).attention_path

    def head_state(self) -> dict[str, Tensor]:
        """Initial values of the head: float32 copies on the CPU by dotted name, exact even if the model is bfloat16."""
        return {key: value.clone() for key, value in self._head_state.items()}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        hidden_states: Tensor | None = None,
        first_layer: int = 0,
    ) -> Tensor:
        """The transformers model's own forward pass, from the tokens or from what enters a layer.

        With `hidden_states` from `layer_inputs`, the result equals that of the full pass bit for bit.

        Args:
            input_ids: Shape (rows, t).
            attention_mask: 1 at tokens, 0 at padding, shape (rows, t).
            token_type_ids: Segments, shape (rows, t); ignored by architectures without segments.
            position_ids: From `position_ids`; None takes the model's own.
            hidden_states: What enters `first_layer`, shape (rows, t, hidden); None computes everything.
            first_layer: In [0, number of layers]; the number of layers means that only the head is left to compute.

        Returns:
            Logits, shape (rows, labels), in the backbone's dtype.

        Raises:
            ConfigurationError: If `first_layer` is out of range, or given without hidden states.
        """
        inputs = self._inputs(input_ids, attention_mask, token_type_ids, position_ids)
        if hidden_states is None:
            if first_layer != 0:
                raise ConfigurationError(f"starting at layer {first_layer} needs the hidden states that enter it.")
            return self.model(**inputs).logits
        self._check_entry(first_layer)
        with start_at(self.layers, first_layer, hidden_states, self._sites.entry):
            return self.model(**inputs).logits

    @torch.no_grad()
    def layer_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        layers: Collection[int],
    ) -> dict[int, Tensor]:
        """What enters the given layers; nothing above the highest of them is computed.

        Args:
            input_ids: Shape (rows, t).
            attention_mask: Shape (rows, t).
            token_type_ids: Shape (rows, t), or None.
            position_ids: From `position_ids`; None takes the model's own.
            layers: Indices in [0, number of layers]; the number of layers stands for the output of the last layer.

        Returns:
            Hidden states by layer, each (rows, t, hidden), without gradient.

        Raises:
            ConfigurationError: If an index is out of range.
        """
        for layer in layers:
            self._check_entry(layer)
        with noting_inputs(self.layers, layers) as notes:
            self.model.base_model(**self._inputs(input_ids, attention_mask, token_type_ids, position_ids))
        return {layer: notes[layer] for layer in layers}

    def position_ids(self, attention_mask: Tensor, offset: int = 0) -> Tensor:
        """Positions as the model itself counts them after a prefix of `offset` tokens, as in peft's prefix tuning.

        Args:
            attention_mask: Shape (rows, t).
            offset: Length of the prefix, >= 0; 0 gives the model's own positions.

        Returns:
            Shape (rows, t), int64.
        """
        if self._architecture.has_padded_positions:
            mask = attention_mask.long()
            return (mask.cumsum(1) + offset) * mask + self.pad_token_id
        columns = torch.arange(attention_mask.shape[1], device=attention_mask.device) + offset
        return columns.expand(attention_mask.shape).contiguous()

    def _layer(self, layer: int) -> Any:
        n_layers = len(self._sites.layer_sites)
        if not 0 <= layer < n_layers:
            raise ConfigurationError(f"layer {layer} does not exist: backbone {self.name} has 0 to {n_layers - 1}.")
        return self._sites.layer_sites[layer]

    def _check_entry(self, layer: int) -> None:
        if not 0 <= layer <= len(self.layers):
            raise ConfigurationError(f"`0 <= layer <= {len(self.layers)}` must hold, but got {layer}.")

    def _inputs(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        # RoBERTa has a single segment, and GPT-2 would add the embeddings of tokens 0 and 1.
        if token_type_ids is not None and getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_type_ids
        if position_ids is not None:
            inputs["position_ids"] = position_ids
        if self._architecture.is_decoder:
            inputs["use_cache"] = False
        return inputs

    def _current_head(self) -> dict[str, Tensor]:
        return {
            f"{path}.{key}": value
            for path in self.head_paths
            for key, value in self.model.get_submodule(path).named_parameters()
        }


def wrap_model(model: Any, tokenizer: Any = None, *, name: str = "custom") -> Backbone:
    """Make a backbone of a ready transformers ``*ForSequenceClassification`` model.

    The model is used as it is, not copied: it is frozen, put into evaluation mode, and attends by ``sdpa``.

    Args:
        model: The model; its head's weights are the head's initial values.
        tokenizer: Its tokenizer; None if inputs come as ids.
        name: For messages and reports.

    Raises:
        BackboneError: If the architecture is not supported, the model is not one for sequence classification, or its
            weights are quantised.
    """
    architecture_of(model.config, name)
    check_not_quantized(name, model.config)
    if model.config._attn_implementation != "sdpa":
        model.set_attn_implementation("sdpa")
    return Backbone(model, tokenizer, name=name, source="wrapped", content_hash=_state_hash(model))


def check_not_quantized(name: str, config: Any) -> None:
    """Refuse quantised weights, from which modules could not be computed.

    Raises:
        BackboneError: If the configuration says that the weights are quantised.
    """
    found = getattr(config, "quantization_config", None)
    if found is not None:
        settings = found if isinstance(found, dict) else found.to_dict()
        named = settings.get("quant_method", "an unknown method")
        # Transformers' own configurations name it by an enumeration.
        method = getattr(named, "value", named)
        raise BackboneError(
            f"backbone {name}: quantised weights are not supported, but quantization_config names {method}: sparse "
            "updates that drop and grow, merged exports and full copies read and change single weights. Give the model "
            "before quantisation."
        )


def _state_hash(model: Any) -> str:
    """SHA-256 over configuration and weights."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settle_padding(model: Any, tokenizer: Any, name: str, *, has_padded_positions: bool) -> int:
    """Make tokenizer and model agree on a padding token; decoders without one pad with their end of text."""
    config = model.config
    if tokenizer is not None:
        n_ids = model.get_input_embeddings().num_embeddings
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= n_ids:
            token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
            if token is None:
                raise BackboneError(
                    f"backbone {name}: batches need a padding token, but its tokenizer has neither that nor an "
                    "end-of-text token; set `pad_token` in tokenizer_config.json."
                )
            tokenizer.pad_token = token
        if has_padded_positions and config.pad_token_id != tokenizer.pad_token_id:
            raise BackboneError(
                f"backbone {name}: the tokenizer pads with token {tokenizer.pad_token_id}, but the model counts "
                f"positions by padding token {config.pad_token_id}; take the model's own tokenizer."
            )
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise BackboneError(f"backbone {name}: batches need a padding token; set `pad_token_id` in its configuration.")
    return int(config.pad_token_id)
