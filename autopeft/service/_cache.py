"""Studies that are read again and again, kept up to date at the cost of what has changed in them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from autopeft.store import SqlStore, StudyFollower
from autopeft.study import Study


class StudyCache:
    """The studies that were read last. Safe to be used by several threads.

    Args:
        store: Where studies are.
        size: Most studies that are kept, >= 1; those read longest ago are forgotten.
    """

    def __init__(self, store: SqlStore, *, size: int = 8) -> None:
        self._store = store
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[StudyFollower, threading.Lock]] = OrderedDict()

    def load(self, name: str) -> Study:
        """A study as it is now; learning curves of running trials are those of their claim.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        outline = self._store.load_outline(name)
        with self._lock:
            if name not in self._kept:
                self._kept[name] = (StudyFollower(self._store, name), threading.Lock())
            self._kept.move_to_end(name)
            follower, lock = self._kept[name]
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        with lock:
            return replace(follower.refresh(), attributes=outline.attributes)
