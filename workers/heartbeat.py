"""Keeps a worker and what it holds alive in the store, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from autopeft.exceptions import StoreError
from autopeft.store import TrialStore, WorkerFacts, WorkerState

#: What a worker does is said no more often, in seconds.
_SAID_EVERY_S = 5.0

_logger = logging.getLogger("autopeft.worker")


class Heartbeat:
    """Says every quarter of a lease that a worker is alive, and that it works on its trials.

    Which trials it works on is said sooner, but no more often than every few seconds: they may be shorter than that.

    Args:
        store: Where the worker is announced and the trials are held.
        facts: What the worker says of itself.
        lease_s: Length of the leases.
    """

    def __init__(self, store: TrialStore, facts: WorkerFacts, lease_s: float) -> None:
        self._store = store
        self._facts = facts
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._wake = threading.Event()
        self._lost: set[int] = set()
        self._n_holds = 0
        self._is_changed = False
        # Nothing was said for a while: what changes is said at once.
        self._is_quiet = False
        self._is_troubled = False
        self._thread = threading.Thread(target=self._run, name="autopeft-heartbeat", daemon=True)

    @property
    def facts(self) -> WorkerFacts:
        with self._lock:
            return self._facts

    @property
    def lost(self) -> frozenset[int]:
        """Numbers of the held trials that another worker has by now, or nobody."""
        with self._lock:
            return frozenset(self._lost)

    def start(self) -> None:
        """Announce the worker and begin.

        Raises:
            StoreError: If the store cannot be used.
        """
        self._store.announce_worker(self._facts, self._lease_s)
        self._thread.start()

    def say(self, **changes: Any) -> None:
        """Change what the worker says of itself; told at once, by the thread."""
        self._change(changes, is_urgent=True)

    def hold(self, study: str, numbers: Collection[int]) -> None:
        """From now on the leases of these trials are kept alive."""
        self._change({"state": WorkerState.WORKING, "study": study, "trials": tuple(numbers)}, is_urgent=False)

    def drop(self) -> None:
        """No trial is held any more."""
        self._change({"state": WorkerState.IDLE, "study": None, "trials": ()}, is_urgent=False)

    def stop(self) -> None:
        """End the thread and forget the worker."""
        self._done.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        try:
            self._store.retire_worker(self._facts.id)
        except StoreError as error:
            _logger.warning("worker %s is not signed off: %s", self._facts.id, error)

    def _change(self, changes: dict[str, Any], *, is_urgent: bool) -> None:
        with self._lock:
            if "trials" in changes:
                self._lost = set()
                self._n_holds += 1
            self._facts = replace(self._facts, **changes)
            self._is_changed = True
            if is_urgent or self._is_quiet:
                self._wake.set()

    def _run(self) -> None:
        pause_s = self._lease_s / 4
        short_s = min(_SAID_EVERY_S, pause_s)
        while not self._done.is_set():
            with self._lock:
                self._is_changed = self._is_quiet = False
                self._wake.clear()
            if self._done.is_set():
                return
            self._beat()
            if self._wake.wait(short_s):
                continue
            with self._lock:
                self._is_quiet = is_quiet = not self._is_changed
            if is_quiet:
                self._wake.wait(pause_s - short_s)

    def _beat(self) -> None:
        with self._lock:
            facts, n_holds = self._facts, self._n_holds
        try:
            lost = self._store.announce_worker(facts, self._lease_s)
        except StoreError as error:
            if not self._is_troubled:
                _logger.warning("the store cannot be reached, what is trained goes on: %s", error)
            self._is_troubled = True
            return
        with self._lock:
            # A trial that was finished meanwhile is not lost, but nobody looks then. If others are held by now, or the
            # same ones once more, nothing was asked of these.
            if n_holds == self._n_holds:
                self._lost |= lost
        if self._is_troubled:
            _logger.warning("the store is there again.")
        self._is_troubled = False
