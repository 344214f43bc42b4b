"""Values that drivers and workers share; what stores do with them is in `contract_cluster`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from autopeft.store import DriverLease, WorkerFacts, WorkerRecord

START = datetime(2025, 1, 2, tzinfo=UTC)


def make_lease(read_after_s: float) -> DriverLease:
    return DriverLease(
        study="s",
        holder="a",
        executor="local",
        weight=1.0,
        acquired_at=START,
        heartbeat_at=START,
        expires_at=START + timedelta(seconds=60),
        read_at=START + timedelta(seconds=read_after_s),
    )


def test_a_lease_expires_by_the_clock_it_was_read_with() -> None:
    assert [make_lease(after).is_expired for after in (0, 59, 60, 61)] == [False, False, True, True]
    assert (make_lease(59).held_s, make_lease(-1).held_s) == (59, 0)


def test_a_worker_is_gone_when_its_time_is_over() -> None:
    facts = WorkerFacts(id="w", host="h", pid=1)

    def record(after: float) -> WorkerRecord:
        read = START + timedelta(seconds=after)
        expires = START + timedelta(seconds=60)
        return WorkerRecord(facts=facts, announced_at=START, heartbeat_at=START, expires_at=expires, read_at=read)

    assert [record(after).is_expired for after in (59, 60)] == [False, True]


@pytest.mark.parametrize(
    ("change", "rule"), [({"id": ""}, "needs a name"), ({"host": ""}, "and a host"), ({"pid": 0}, "pid >= 1")]
)
def test_a_worker_has_a_name_a_host_and_a_process(change: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        WorkerFacts(**{"id": "w", "host": "h", "pid": 1, **change})  # type: ignore[arg-type]
