"""A search that was handed to a service, and whose turn it is among those that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final


class SubmissionState(StrEnum):
    """Where a submission is. Append only: the values are stored."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"

    @property
    def is_active(self) -> bool:
        """Whether a driver is, or may be, at work."""
        return self in ACTIVE

    @property
    def is_finished(self) -> bool:
        """Whether nothing happens to it any more unless it is submitted or resumed again."""
        return self in _FINISHED


#: A driver is, or may be, at work.
ACTIVE: Final = (SubmissionState.RUNNING, SubmissionState.STOPPING)
_FINISHED: Final = (SubmissionState.STOPPED, SubmissionState.COMPLETE, SubmissionState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A search that was handed to a service.

    Args:
        study: Name of its study.
        owner: Who handed it in.
        settings: What was asked for, JSON-ready.
        state: Where it is.
        attempts: How often its driver ended without a reason of its own since it was queued, >= 0.
        service: Which service drives it or did last; None if none has.
        process: Its driver, as `worker_id` names processes; None if none was started.
        message: Why it ended as it did; None if there is nothing to say.
        created_at: When it was first handed in.
        queued_at: When it last was.
        started_at: When its driver was last started; None if never.
        finished_at: When it ended; None unless it has.
    """

    study: str
    owner: str
    settings: Mapping[str, Any]
    state: SubmissionState
    attempts: int
    service: str | None
    process: str | None
    message: str | None
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """What decides about a queued submission's turn: whose it is, and since when it waits."""

    study: str
    owner: str
    queued_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerHistory:
    """What an owner has had: searches at work now, and the moment its last one was started."""

    n_active: int = 0
    last_started_at: datetime | None = None


def turn_order(queue: Sequence[QueueEntry], history: Mapping[str, OwnerHistory]) -> list[QueueEntry]:
    """The queue in the order in which it would be served: round robin over owners, each one's oldest first.

    The next owner is the one with the fewest searches at work, then the one that was served longest ago.

    Args:
        queue: What waits.
        history: By owner; one that is missing has had nothing.
    """
    waiting: dict[str, list[QueueEntry]] = {}
    for entry in sorted(queue, key=lambda item: (item.queued_at, item.study)):
        waiting.setdefault(entry.owner, []).append(entry)
    had = {owner: history.get(owner, OwnerHistory()) for owner in waiting}
    # Owners that were never served come first, in the order of their oldest submission.
    served = {owner: (item.n_active, *_rank(item.last_started_at)) for owner, item in had.items()}
    n_rounds = 0.0
    ordered = []
    while waiting:
        owner = min(waiting, key=lambda name: (served[name], waiting[name][0].queued_at, name))
        ordered.append(waiting[owner].pop(0))
        n_rounds += 1
        # Served in this order, the owner comes behind everybody with as many searches at work.
        served[owner] = (served[owner][0] + 1, 2, n_rounds)
        if not waiting[owner]:
            del waiting[owner]
    return ordered


def _rank(moment: datetime | None) -> tuple[int, float]:
    return (0, 0.0) if moment is None else (1, moment.timestamp())
