"""SqlStore keeps the contract on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autopeft.store import SqlStore
from tests.store.builders import FakeClock
from tests.store.contract import StoreContract


class TestSqlStoreOnSqlite(StoreContract):
    @pytest.fixture
    def store(self, clock: FakeClock, tmp_path: Path) -> Iterator[SqlStore]:
        with SqlStore(tmp_path / "ä %20 folder" / "a b.db", clock=clock) as store:
            yield store
