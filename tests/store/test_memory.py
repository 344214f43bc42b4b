"""MemoryStore keeps the contract."""

from __future__ import annotations

import pytest

from autopeft.store import MemoryStore
from tests.store.builders import FakeClock
from tests.store.contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self, clock: FakeClock) -> MemoryStore:
        return MemoryStore(clock=clock)


def test_url_says_that_nothing_is_kept() -> None:
    assert MemoryStore().url == "memory:"
