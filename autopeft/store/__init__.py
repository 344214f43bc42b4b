"""What is remembered: the trial store's contract, in memory and in a database. No torch."""

from autopeft.store._archive import ARCHIVE_VERSION, archive_study, read_archive, restore_study
from autopeft.store._base import LOST_WORKER, Clock, StudyChanges, StudyMark, StudySummary, TrialStore, utc_now
from autopeft.store._cluster import (
    LOCAL_EXECUTOR,
    PATIENCE_S,
    ClusterStore,
    DriverLease,
    WorkerFacts,
    WorkerRecord,
    WorkerState,
)
from autopeft.store._engine import mask_url
from autopeft.store._follower import StudyFollower, Subscription
from autopeft.store._memory import MemoryStore
from autopeft.store._overviews import StudyOverview
from autopeft.store._reader import TRIAL_COLUMNS, LeaseFacts, StudyReader
from autopeft.store._schema import upgrade
from autopeft.store._sql import SqlStore, open_store
from autopeft.store._submission import OwnerHistory, QueueEntry, Submission, SubmissionState, turn_order
from autopeft.store._submissions import Submissions
from autopeft.store._totals import EndedTrial, StoreTotals

__all__ = [
    "ARCHIVE_VERSION",
    "LOCAL_EXECUTOR",
    "LOST_WORKER",
    "PATIENCE_S",
    "TRIAL_COLUMNS",
    "Clock",
    "ClusterStore",
    "DriverLease",
    "EndedTrial",
    "LeaseFacts",
    "MemoryStore",
    "OwnerHistory",
    "QueueEntry",
    "SqlStore",
    "StoreTotals",
    "StudyChanges",
    "StudyFollower",
    "StudyMark",
    "StudyOverview",
    "StudyReader",
    "StudySummary",
    "Submission",
    "SubmissionState",
    "Submissions",
    "Subscription",
    "TrialStore",
    "WorkerFacts",
    "WorkerRecord",
    "WorkerState",
    "archive_study",
    "mask_url",
    "open_store",
    "read_archive",
    "restore_study",
    "turn_order",
    "upgrade",
    "utc_now",
]
