"""A store that is asked again while it cannot be reached: a database that restarts ends no search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, cast

from autopeft.exceptions import StoreError
from autopeft.store import TrialStore

#: A database restarts, or a network comes back, within so long; else the search ends, and can be resumed.
PATIENCE_S = 180.0
_PAUSE_S = (0.2, 5.0)


def patient(store: TrialStore, tell: Callable[[str], None], *, patience_s: float = PATIENCE_S) -> TrialStore:
    """The same store, whose methods are called again while they raise `StoreError`.

    A call whose answer was lost may have happened: every method of the contract either says so when it is repeated
    (`TrialConflictError`), or changes nothing more. Claims are the exception, and a search that runs no trials itself
    makes none.

    Args:
        store: What is called.
        tell: Called when the store is out of reach, once, and when it is back.
        patience_s: Seconds after which the error passes through, >= 0.
    """
    return cast("TrialStore", _Patient(store, tell, patience_s))


def impatient(store: TrialStore) -> TrialStore:
    """The store behind a patient one; any other as it is."""
    return store.impatient if isinstance(store, _Patient) else store


def back_since_s(store: TrialStore) -> float:
    """Seconds since a patient store was back after it could not be reached; infinite if it always could."""
    return time.monotonic() - store.back_at if isinstance(store, _Patient) else math.inf


class _Patient:
    def __init__(self, store: TrialStore, tell: Callable[[str], None], patience_s: float) -> None:
        self.impatient = store
        self.back_at = -math.inf
        self._store = store
        self._tell = tell
        self._patience_s = patience_s

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "close":
            return found

        def call(*args: Any, **options: Any) -> Any:
            return self._call(found, args, options)

        return call

    def _call(self, method: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        began, pause_s, is_told = time.monotonic(), _PAUSE_S[0], False
        while True:
            try:
                result = method(*args, **options)
            except StoreError as error:
                if time.monotonic() - began + pause_s > self._patience_s:
                    raise
                if not is_told:
                    self._tell(f"{error} Trying again for {self._patience_s:.0f} s; workers go on meanwhile.")
                    is_told = True
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_S[1])
                continue
            if is_told:
                self.back_at = time.monotonic()
                self._tell("The database is there again.")
            return result
