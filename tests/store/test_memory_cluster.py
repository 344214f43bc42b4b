"""Drivers and workers in memory; the contract is `contract_cluster`'s."""

from __future__ import annotations

from autopeft.store import MemoryStore, WorkerFacts
from tests.store.builders import make_spec


def test_what_is_returned_is_a_copy() -> None:
    store = MemoryStore()
    resources = {"cores": 2}
    store.announce_worker(WorkerFacts(id="w", host="h", pid=1, resources=resources), 60)
    resources["cores"] = 3
    (record,) = store.workers()
    record.facts.resources["cores"] = 4  # type: ignore[index]
    assert store.workers()[0].facts.resources == {"cores": 2}


def test_drivers_come_in_the_order_of_their_studies() -> None:
    store = MemoryStore()
    for name in ("b", "a", "c"):
        store.create_study(make_spec(name))
    for name in ("a", "b"):
        store.acquire_driver(name, "d", executor="local", lease_s=60)
    assert [lease.study for lease in store.drivers()] == ["b", "a"]
