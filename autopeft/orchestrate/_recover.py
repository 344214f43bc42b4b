"""Trials whose worker is gone are put back."""

from __future__ import annotations

from autopeft.orchestrate._worker_id import is_dead
from autopeft.store import TrialStore

#: A trial whose workers were lost that often is given up.
MAX_ATTEMPTS = 3


def recover(store: TrialStore, study: str) -> list[int]:
    """Put back the trials of workers that are gone: expired leases, and dead processes of this machine.

    Returns:
        Numbers of the trials put back or given up.
    """
    dead = {worker for worker in set(store.running_workers(study).values()) if is_dead(worker)}
    return store.release_expired(study, max_attempts=MAX_ATTEMPTS, dead_workers=dead)
