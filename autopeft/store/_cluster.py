"""What several machines know of each other: who drives a study, which workers there are, who works on what next.

All times are those of the store's own clock (the server's on PostgreSQL), so that machines' clocks need not agree; a
value that can expire carries the moment it was read at by that clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from autopeft.study import Trial, TrialKind

#: Executor of a driver that runs the trials itself: its study asks for no workers.
LOCAL_EXECUTOR = "local"
#: A study that asks for workers and got none for so long comes before those that workers prefer, in seconds.
PATIENCE_S = 60.0


class WorkerState(StrEnum):
    """What a worker does. Append only: the values are stored."""

    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverLease:
    """Who drives a study.

    Args:
        study: Name of the study.
        holder: Who drives it, as `worker_id` names processes.
        executor: Where its trials run: ``"local"``, ``"workers"`` or ``"ray"``.
        weight: Share of the workers that the study is to get, relative to other studies', > 0.
        acquired_at: Since when the holder has it.
        heartbeat_at: When the holder was heard of last.
        expires_at: When somebody else may take it, unless the holder is heard of before.
        read_at: The store's time when this was read.
    """

    study: str
    holder: str
    executor: str
    weight: float
    acquired_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    read_at: datetime

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= self.read_at

    @property
    def held_s(self) -> float:
        """Seconds since the holder got it, >= 0."""
        return max((self.read_at - self.acquired_at).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What a worker says of itself.

    Args:
        id: Its name, as `worker_id` gives it; the name its trials are held under.
        host: Name of its machine.
        pid: Its process there, >= 1.
        resources: What it has, JSON-ready: cores, memory, devices.
        versions: Versions of what decides whether it can serve a study, by name of the package.
        state: What it does.
        study: Study it works on; None if on none.
        trials: Numbers of the trials it works on.
        refusals: Why it does not serve a study, by name of the study.
    """

    id: str
    host: str
    pid: int
    resources: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    state: WorkerState = WorkerState.STARTING
    study: str | None = None
    trials: tuple[int, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id or not self.host:
            raise ValueError(f"a worker needs a name and a host, but got {self.id!r} and {self.host!r}.")
        if self.pid < 1:
            raise ValueError(f"`pid >= 1` must hold for worker {self.id!r}, but got {self.pid}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker as the store knows it.

    Args:
        facts: What it said last.
        announced_at: When it was first heard of.
        heartbeat_at: When it was last heard of.
        expires_at: When it counts as gone, unless it is heard of before.
        read_at: The store's time when this was read.
    """

    facts: WorkerFacts
    announced_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    read_at: datetime

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= self.read_at


@runtime_checkable
class ClusterStore(Protocol):
    """The part of a trial store that several drivers and workers share."""

    def acquire_driver(
        self,
        study_name: str,
        holder: str,
        *,
        executor: str,
        lease_s: float,
        weight: float = 1.0,
        dead_holders: Collection[str] = (),
    ) -> DriverLease:
        """Become the driver of a study, unless another one is and its lease holds.

        Who is the driver already keeps it, with what is said now.

        Args:
            study_name: Study to drive.
            holder: Who asks.
            executor: Where the trials will run; `LOCAL_EXECUTOR` asks for no workers.
            lease_s: Seconds until the lease expires unless it is kept, > 0.
            weight: Share of the workers relative to other studies', > 0.
            dead_holders: Drivers known to be gone, whose leases do not count.

        Returns:
            The lease that holds now: the asker's own, or another's.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def keep_driver(self, study_name: str, holder: str, lease_s: float) -> None:
        """Extend the driver's lease to `lease_s` seconds from now. One that expired, but that nobody took, goes on.

        Raises:
            NotFoundError: If there is no study of that name.
            DriverConflictError: If the holder does not drive the study any more.
        """
        ...

    def release_driver(self, study_name: str, holder: str) -> bool:
        """Stop being the driver; the study asks for no workers any more.

        Returns:
            Whether it was the driver.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def driver(self, study_name: str) -> DriverLease | None:
        """Who drives a study, even if the lease expired; None if nobody does.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def drivers(self) -> list[DriverLease]:
        """The drivers of all studies that have one, oldest study first."""
        ...

    def announce_worker(self, worker: WorkerFacts, lease_s: float) -> frozenset[int]:
        """Make a worker known, or renew what is known of it, and extend the leases of the trials that it works on.

        Args:
            worker: What it says of itself, replacing what it said before.
            lease_s: Seconds from now after which it counts as gone, and its leases expire, unless it is heard of
                before, > 0.

        Returns:
            Numbers of those trials that it does not hold any more.
        """
        ...

    def retire_worker(self, worker_id: str) -> bool:
        """Forget a worker that ends; its trials are another matter (`release_trial`).

        Returns:
            Whether it was known.
        """
        ...

    def workers(self) -> list[WorkerRecord]:
        """All workers, also those that were not heard of in time, in the order in which they came."""
        ...

    def claim_next(
        self,
        worker: str,
        *,
        lease_s: float,
        studies: Collection[str] | None = None,
        kinds: Collection[TrialKind] | None = None,
        prefer: Collection[str] | None = None,
        refuse: Collection[str] = (),
        limit: int = 1,
    ) -> list[tuple[str, Trial]]:
        """Take WAITING trials of the study whose turn it is, the lowest numbers first, as `claim_trial` does.

        It is the turn of the study with the fewest RUNNING trials relative to its driver's weight. Among equals it is
        that of one that got no worker for `PATIENCE_S`, then of a preferred one, then of the one that has waited
        longest.

        Args:
            worker: Who takes them.
            lease_s: Seconds until the leases expire unless they are kept alive, > 0.
            studies: Names of the studies to take from, whoever drives them; None for all whose driver asks for
                workers, also if that driver's lease expired.
            kinds: Kinds to choose from; None for all.
            prefer: Names of the studies that the worker is prepared for; None for none.
            refuse: Names of the studies not to take from.
            limit: Most trials to take, >= 1. Several have the kind and fidelity of the first, so that they can train as
                one batch.

        Returns:
            Study and trial, RUNNING, by number; all of one study. Empty if nothing waits.

        Raises:
            NotFoundError: If one of `studies` does not exist.
        """
        ...
