"""What is remembered: the trial store's contract, in memory and in a database. No torch."""

from autopeft.store._base import LOST_WORKER, Clock, StudySummary, TrialStore, utc_now
from autopeft.store._memory import MemoryStore

__all__ = ["LOST_WORKER", "Clock", "MemoryStore", "StudySummary", "TrialStore", "utc_now"]
