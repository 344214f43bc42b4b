"""Drivers and workers in the memory of one process; the contract is `ClusterStore`'s."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from autopeft.store import _messages as messages
from autopeft.store._base import Clock
from autopeft.store._cluster import DriverLease, WorkerFacts, WorkerRecord
from autopeft.store._codec import to_json


@dataclass(slots=True)
class _Driver:
    lease: DriverLease
    served_at: datetime | None = None


class MemoryCluster:
    """Who drives which study, and which workers there are.

    Args:
        clock: Gives the current time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._drivers: dict[str, _Driver] = {}
        self._workers: dict[str, WorkerRecord] = {}

    def _check_study(self, name: str) -> None:
        """Raise if there is no study of that name."""
        raise NotImplementedError

    def _study_names(self) -> list[str]:
        """Names of all studies, oldest first."""
        raise NotImplementedError

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
        messages.check_driver(holder, lease_s, executor, weight)
        with self._lock:
            self._check_study(study_name)
            now = self._clock()
            known = self._drivers.get(study_name)
            is_own = known is not None and known.lease.holder == holder
            if known is not None and not is_own:
                other = replace(known.lease, read_at=now)
                if not other.is_expired and other.holder not in dead_holders:
                    return other
            lease = DriverLease(
                study=study_name,
                holder=holder,
                executor=executor,
                weight=float(weight),
                acquired_at=known.lease.acquired_at if known is not None and is_own else now,
                heartbeat_at=now,
                expires_at=now + timedelta(seconds=lease_s),
                read_at=now,
            )
            self._drivers[study_name] = _Driver(lease, None if known is None else known.served_at)
            return lease

    def keep_driver(self, study_name: str, holder: str, lease_s: float) -> None:
        messages.check_claim(holder, lease_s)
        with self._lock:
            self._check_study(study_name)
            known = self._drivers.get(study_name)
            if known is None or known.lease.holder != holder:
                raise messages.not_driver(study_name, holder, None if known is None else known.lease.holder)
            now = self._clock()
            known.lease = replace(known.lease, heartbeat_at=now, expires_at=now + timedelta(seconds=lease_s))

    def release_driver(self, study_name: str, holder: str) -> bool:
        with self._lock:
            self._check_study(study_name)
            known = self._drivers.get(study_name)
            if known is None or known.lease.holder != holder:
                return False
            del self._drivers[study_name]
            return True

    def driver(self, study_name: str) -> DriverLease | None:
        with self._lock:
            self._check_study(study_name)
            known = self._drivers.get(study_name)
            return None if known is None else replace(known.lease, read_at=self._clock())

    def drivers(self) -> list[DriverLease]:
        with self._lock:
            # In the order of their studies, not of their leases.
            found = [self.driver(name) for name in self._study_names()]
            return [item for item in found if item is not None]

    def _served_at(self, study: str) -> datetime | None:
        """When the study last got a worker, or when its driver came; None if neither is known."""
        known = self._drivers.get(study)
        return None if known is None else known.served_at or known.lease.acquired_at

    def _note_service(self, study: str) -> None:
        """The study has got a worker."""
        if study in self._drivers:
            self._drivers[study].served_at = self._clock()

    def announce_worker(self, worker: WorkerFacts, lease_s: float) -> frozenset[int]:
        """Leave the leases of trials to who has them."""
        messages.check_claim(worker.id, lease_s)
        facts = replace(
            worker,
            resources=_through_json(worker.resources, "resources"),
            versions=_through_json(worker.versions, "versions"),
            refusals=_through_json(worker.refusals, "refusals"),
        )
        with self._lock:
            now = self._clock()
            known = self._workers.get(worker.id)
            self._workers[worker.id] = WorkerRecord(
                facts=facts,
                announced_at=now if known is None else known.announced_at,
                heartbeat_at=now,
                expires_at=now + timedelta(seconds=lease_s),
                read_at=now,
            )
        return frozenset()

    def retire_worker(self, worker_id: str) -> bool:
        with self._lock:
            return self._workers.pop(worker_id, None) is not None

    def workers(self) -> list[WorkerRecord]:
        with self._lock:
            now = self._clock()
            return [
                replace(record, facts=_copied(record.facts), read_at=now)
                for record in sorted(self._workers.values(), key=lambda item: (item.announced_at, item.facts.id))
            ]


def _through_json(value: Mapping[str, Any], subject: str) -> Any:
    return json.loads(to_json(dict(value), f"a worker's {subject}"))


def _copied(facts: WorkerFacts) -> WorkerFacts:
    return replace(facts, resources=dict(facts.resources), versions=dict(facts.versions), refusals=dict(facts.refusals))
