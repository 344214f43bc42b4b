"""Weights on disk: which files they are, whether they may be read, and what they hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from autopeft.exceptions import BackboneError

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_CHUNK_BYTES = 1 << 20


def check_weight_names(name: str, files: frozenset[str], *, allow_pickle: bool) -> None:
    """Refuse a list of files without weights that may be read.

    Args:
        name: Of the backbone, for error messages.
        files: Names of the files at the top of its folder.
        allow_pickle: Whether pickle files count.

    Raises:
        BackboneError: If there are no weights, or only pickled ones and those are not allowed.
    """
    if files.intersection(_SAFETENSORS):
        return
    pickles = sorted(files.intersection(_PICKLES))
    if not pickles:
        raise BackboneError(f"backbone {name}: there are no weights; expected {' or '.join(_SAFETENSORS)}.")
    if not allow_pickle:
        raise BackboneError(
            f"backbone {name}: the weights are pickled ({pickles[0]}), and a pickle can run any code when it is read. "
            "Save the model again as safetensors (`model.save_pretrained(folder)`), or, if you trust the file, pass "
            "--allow-pickle."
        )


def weight_files(name: str, folder: Path, *, allow_pickle: bool) -> list[Path]:
    """The files that hold the weights, all shards, in a stable order.

    Raises:
        BackboneError: As `check_weight_names`, or if an index is broken or names a file that is missing.
    """
    check_weight_names(name, frozenset(path.name for path in folder.iterdir()), allow_pickle=allow_pickle)
    found = next(folder / item for item in (*_SAFETENSORS, *_PICKLES) if (folder / item).exists())
    if found.suffix != ".json":
        return [found]
    try:
        files = [folder / item for item in sorted(set(json.loads(found.read_text("utf-8"))["weight_map"].values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(f"backbone {name}: {found} is not an index of weights: {error!r}.") from error
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise BackboneError(f"backbone {name}: {found.name} names files that are missing: {', '.join(missing)}.")
    return files


def tensor_names(name: str, files: list[Path]) -> frozenset[str]:
    """Names of the tensors in weight files; of safetensors only the header is read.

    Raises:
        BackboneError: If a file is not what its name says, or was cut off.
    """
    names: set[str] = set()
    for path in files:
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as tensors:
                    names.update(tensors.keys())
            else:
                names.update(torch.load(path, map_location="meta", weights_only=True))
        except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, TypeError) as error:
            raise BackboneError(
                f"backbone {name}: {path} is damaged or incomplete ({str(error).splitlines()[0]}); "
                "copy or download it again."
            ) from error
        except Exception as error:
            # The unpickler of `weights_only` raises errors of its own kind for what it refuses.
            raise BackboneError(f"backbone {name}: {path} holds more than weights and is not read: {error}") from error
    return frozenset(names)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(config: Path, digests: list[str]) -> str:
    """SHA-256 over the configuration file and the digests of the weight files, in hexadecimal."""
    return hashlib.sha256(config.read_bytes() + "".join(digests).encode()).hexdigest()
