"""Checkpoints in files, so that a run that was cut off or stopped goes on where it was."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle  # for its error; files are read with weights_only  # nosec B403
import time
from pathlib import Path

import torch
from torch import Tensor

from autopeft.exceptions import CacheError
from autopeft.training._cache import atomic_file
from autopeft.training._checkpoint import Checkpoint

#: Of the files of all processes together; the least recently written ones make room.
CHECKPOINT_CAP_BYTES = 2 << 30
#: A checkpoint is written if that takes at most so large a share of the time that it can save.
_WORTH = 0.1
#: Bytes per second that writing is assumed to manage until it has been measured.
_ASSUMED_RATE = 100e6
_DIGEST_BYTES = 32

_logger = logging.getLogger("autopeft.training")


class CheckpointFolder:
    """One file per run, replaced at each of its points: the SHA-256 of what follows, then the checkpoint.

    What cannot be written or read costs a warning and the time to begin again, never a trial.

    Args:
        folder: Made when it is needed.
        cap_bytes: Of all files in it.
    """

    def __init__(self, folder: Path, *, cap_bytes: int = CHECKPOINT_CAP_BYTES) -> None:
        self.folder = folder
        self._cap = cap_bytes
        self._rate = _ASSUMED_RATE
        self._has_failed = False

    def is_worth(self, n_bytes: int, seconds: float) -> bool:
        """Whether writing so many bytes takes little time beside the training that they stand for."""
        return not self._has_failed and n_bytes / self._rate <= _WORTH * seconds

    def save(self, key: str, checkpoint: Checkpoint, seconds: float) -> bool:
        """Write a checkpoint if that is worth it.

        Args:
            key: Of the run.
            checkpoint: What to write.
            seconds: Training time since the checkpoint before.

        Returns:
            Whether it was written.
        """
        if not self.is_worth(n_tensor_bytes(checkpoint), seconds):
            return False
        start = time.perf_counter()
        buffer = io.BytesIO()
        torch.save(checkpoint.to_dict(), buffer)
        payload = buffer.getvalue()
        n_bytes = _DIGEST_BYTES + len(payload)
        try:
            with (
                atomic_file(self._path(key), n_bytes=n_bytes, cap_bytes=self._cap) as temporary,
                temporary.open("wb") as stream,
            ):
                stream.write(hashlib.sha256(payload).digest())
                stream.write(payload)
        except CacheError as error:
            self._has_failed = True
            _logger.warning("%s Runs that are cut off begin again from here on.", error)
            return False
        self._rate = n_bytes / max(time.perf_counter() - start, 1e-6)
        return True

    def load(self, key: str, device: torch.device) -> Checkpoint | None:
        """Read a run's checkpoint; None if there is none, or beginning again is cheaper than reading it.

        Args:
            key: Of the run.
            device: Where its tensors are wanted.
        """
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _logger.warning("%s cannot be read (%s); the trial begins again.", path, error.strerror or error)
            return None
        payload = data[_DIGEST_BYTES:]
        try:
            if hashlib.sha256(payload).digest() != data[:_DIGEST_BYTES]:
                raise ValueError("its content is not what was written")
            loaded = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
            checkpoint = Checkpoint.from_dict(loaded)
        except (ValueError, TypeError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            _logger.warning("checkpoint %s is damaged (%s); the trial begins again.", path, error)
            self.remove(key)
            return None
        is_cheaper = len(data) / self._rate < checkpoint.counters["wall_time_s"]
        return checkpoint if is_cheaper else None

    def remove(self, key: str) -> None:
        """Remove a run's checkpoint, if there is one: it has ended."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            _logger.warning("checkpoint %s cannot be removed (%s).", self._path(key), error.strerror or error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.checkpoint"


def n_tensor_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of a checkpoint's values and moments, which is nearly all of it."""
    tensors: list[Tensor] = [*checkpoint.tensors.values(), *(t for pair in checkpoint.moments.values() for t in pair)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
