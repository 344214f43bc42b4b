"""The contract's signatures are the stores' signatures, and every method of the contract says what it promises."""

from __future__ import annotations

import inspect

import pytest

from autopeft.store import ClusterStore, MemoryStore, SqlStore, TrialStore, utc_now

METHODS = sorted(
    name
    for contract in (ClusterStore, TrialStore)
    for name, item in vars(contract).items()
    if inspect.isfunction(item) and not name.startswith("_")
)


@pytest.mark.parametrize("store", [MemoryStore, SqlStore])
@pytest.mark.parametrize("name", METHODS)
def test_signatures_are_the_contracts(store: type, name: str) -> None:
    assert inspect.signature(getattr(store, name)) == inspect.signature(getattr(TrialStore, name))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(TrialStore, name))


def test_contract_has_methods() -> None:
    assert {
        "claim_next",
        "acquire_driver",
        "add_trial",
        "claim_trial",
        "heartbeat",
        "complete_trial",
        "release_expired",
    } <= set(METHODS)


def test_time_has_a_zone() -> None:
    assert utc_now().utcoffset() is not None
