"""How much memory tensors take at once, counted at every operation."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the block, counts the bytes of the tensors that operations make, as long as they live.

    A storage counts once, however many views there are, and with what the operation asked for: no allocator's rounding
    and no kernel's scratch space, so the number is the same on every machine and run.

    Args:
        known: Tensors that exist already; views of them cost nothing.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {item.untyped_storage().data_ptr() for item in known}
        self._owners: Counter[int] = Counter()
        self._now = 0
        #: Largest sum so far, in bytes.
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note what it made."""
        result = func(*args, **(kwargs or {}))
        for item in tree_leaves(result):
            if isinstance(item, Tensor):
                self._note(item)
        return result

    def _note(self, item: Tensor) -> None:
        storage = item.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in self._known or size == 0:
            return
        self._owners[key] += 1
        if self._owners[key] == 1:
            self._now += size
            self.peak = max(self.peak, self._now)
        weakref.finalize(item, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._owners[key] -= 1
        if self._owners[key] == 0:
            del self._owners[key]
            self._now -= size


def tensor_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's parameters and buffers; shared storages count once."""
    storages = {
        item.untyped_storage().data_ptr(): item.untyped_storage().nbytes()
        for item in [*model.parameters(), *model.buffers()]
    }
    return sum(storages.values())
