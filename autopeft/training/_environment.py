"""Where numbers come from: versions, device, precision, content hashes."""

from __future__ import annotations

import functools
import platform
from importlib import metadata
from typing import Any

import torch

from autopeft.training._costs import device_name


def environment(*, device: torch.device, dtype: torch.dtype, backbone_hash: str, task_hash: str) -> dict[str, Any]:
    """Facts that every measurement carries, JSON-ready.

    Args:
        device: Where the training ran.
        dtype: Of the frozen weights and activations.
        backbone_hash: Content hash of the backbone.
        task_hash: Content hash of the task.
    """
    return {
        **versions(),
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "backbone_hash": backbone_hash,
        "task_hash": task_hash,
    }


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what numbers depend on, by name."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("autopeft", "torch", "transformers", "tokenizers", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
