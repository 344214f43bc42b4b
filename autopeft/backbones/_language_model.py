"""The head with which a backbone was pretrained as a language model, where its checkpoint has kept it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from autopeft.backbones._architectures import architecture_of
from autopeft.backbones._backbone import Backbone
from autopeft.backbones._files import tensor_names, weight_files
from autopeft.backbones._load import _quiet, _read_config
from autopeft.backbones._source import find_source, hub_tensor_names
from autopeft.exceptions import BackboneError

#: How some checkpoints call a norm's weight and bias.
_OLD_NAMES = (
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
)


def missing_language_head(
    name: str, *, allow_pickle: bool = False, trust_remote_code: bool = False, revision: str | None = None
) -> tuple[str, ...] | None:
    """What a backbone's checkpoint lacks of its language-model head; no weights are read.

    Args:
        name: Key of `BACKBONES`, local folder, or hub id.
        allow_pickle: Accept weights that are pickled.
        trust_remote_code: Run code that comes with the model.
        revision: Branch, tag or commit of a hub repository.

    Returns:
        Names of the missing tensors, empty if the head is complete; None if that shows only when it is loaded.

    Raises:
        BackboneError: If the backbone cannot be read, or its architecture has no language model.
    """
    source = find_source(name, revision=revision)
    config = _read_config(source, trust_remote_code=trust_remote_code)
    names = (
        hub_tensor_names(source)
        if source.on_hub
        else tensor_names(name, weight_files(name, source.folder, allow_pickle=allow_pickle))
    )
    if names is None:
        return None
    with _quiet(), torch.device("meta"):
        model = _language_class(config, name).from_config(config, trust_remote_code=trust_remote_code)
    return _missing(model, names)


class LanguageHead:
    """A backbone's own language-model head, in float32.

    It reads what the backbone computes, with whatever modules are in it then.

    Args:
        model: The transformers language model; of it only what stands above the base model is used.
        backbone: Its backbone.
    """

    def __init__(self, model: Any, backbone: Backbone) -> None:
        self._backbone = backbone
        self._base = _Given()
        # Only the head's weights are kept; the base model is the backbone's.
        setattr(model, model.base_model_prefix, self._base)
        self._model = model.float().to(backbone.device).requires_grad_(False).eval()

    @torch.inference_mode()
    def logits(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Next-token logits of a decoder, logits of each token itself of an encoder.

        Args:
            input_ids: Shape (rows, t).
            attention_mask: Shape (rows, t).
            position_ids: From `Backbone.position_ids`; None takes the model's own.

        Returns:
            Float32, shape (rows, t, vocabulary).
        """
        base = self._backbone.model.base_model
        # Last of the hooks: it sees what modules have made of the output.
        handle = base.register_forward_hook(self._base.note)
        try:
            self._backbone.forward(input_ids, attention_mask, position_ids=position_ids)
        finally:
            handle.remove()
        logits: Tensor = self._model(input_ids=input_ids, attention_mask=attention_mask).logits
        # Virtual tokens stand before the text.
        return logits[:, -input_ids.shape[1] :]


class _Given(nn.Module):
    """Stands for a base model whose output is known already."""

    def __init__(self) -> None:
        super().__init__()
        self._output: Any = None

    def note(self, _: nn.Module, __: Any, output: Any) -> None:
        self._output = output
        self._output.last_hidden_state = output.last_hidden_state.float()

    def forward(self, *_: Any, **__: Any) -> Any:
        output, self._output = self._output, None
        return output


def load_language_head(backbone: Backbone) -> LanguageHead:
    """Load a backbone's language-model head from the folder it came from.

    Raises:
        BackboneError: If there is no folder, or the checkpoint does not hold the head.
    """
    folder: Path | None = backbone.folder
    if folder is None:
        raise BackboneError(f"backbone {backbone.name}: a wrapped model has no checkpoint to read a head from.")
    config = backbone.model.config
    with _quiet(), torch.random.fork_rng(devices=[]):
        model, info = _language_class(config, backbone.name).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    absent = sorted(key for key in info["missing_keys"] if not key.startswith(f"{model.base_model_prefix}."))
    if absent:
        raise BackboneError(no_language_head(backbone.name, absent))
    return LanguageHead(model, backbone)


def no_language_head(name: str, missing: list[str] | tuple[str, ...]) -> str:
    """The sentence that says so."""
    return (
        f"backbone {name} has no language-model head: {len(missing)} tensors are missing from its checkpoint "
        f"({', '.join(missing[:2])}{', ...' if len(missing) > 2 else ''}). Take a backbone with its pretraining head, "
        "such as bert-base-uncased or gpt2."
    )


def _language_class(config: Any, name: str) -> Any:
    return AutoModelForCausalLM if architecture_of(config, name).is_decoder else AutoModelForMaskedLM


def _missing(model: Any, names: frozenset[str]) -> tuple[str, ...]:
    """Tensors above the base model that are neither in the checkpoint nor tied to one that is loaded."""
    present = set(names)
    for old, new in _OLD_NAMES:
        present |= {old.sub(new, item) for item in names}
    tied = _tied(model)
    prefix = f"{model.base_model_prefix}."
    own = [key for key, _ in model.named_parameters(remove_duplicate=False) if not key.startswith(prefix)]
    return tuple(
        key
        for key in own
        if key not in present and not (key in tied and (tied[key].startswith(prefix) or tied[key] in present))
    )


def _tied(model: Any) -> dict[str, str]:
    """Parameters that are the same tensor as another, by name."""
    keys = getattr(model, "_tied_weights_keys", None) or {}
    is_tied = getattr(model.config, "tie_word_embeddings", True)
    return dict(keys) if is_tied and isinstance(keys, dict) else {}
