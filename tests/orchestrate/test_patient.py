from __future__ import annotations

from typing import Any

import pytest

from autopeft.exceptions import NotFoundError, StoreError
from autopeft.orchestrate import _patient
from autopeft.orchestrate._patient import patient
from autopeft.store import MemoryStore
from tests.orchestrate.test_executor import make_store


class Away(MemoryStore):
    """Cannot be reached for the first calls."""

    n_left = 0

    def load_outline(self, name: str) -> Any:
        if self.n_left:
            self.n_left -= 1
            raise StoreError("the database cannot be reached.")
        return super().load_outline(name)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_patient, "_PAUSE_S", (0.01, 0.02))


def test_a_store_that_comes_back_is_asked_again_and_told_once() -> None:
    store, lines = Away(), list[str]()
    store.create_study(make_store(1).load_study("study").spec)
    store.n_left = 3
    assert patient(store, lines.append).load_outline("study").spec.name == "study"
    assert len(lines) == 2
    assert "cannot be reached. Trying again for 180 s" in lines[0]
    assert lines[1] == "The database is there again."


def test_patience_ends_and_other_errors_pass_at_once() -> None:
    store = Away()
    store.n_left = 3
    with pytest.raises(StoreError):
        patient(store, lambda _: None, patience_s=0.0).load_outline("study")
    assert store.n_left == 2
    store.n_left = 0
    with pytest.raises(NotFoundError):
        patient(store, lambda _: None).load_outline("nobody")


def test_what_is_no_method_is_the_stores_own() -> None:
    store = make_store()
    assert patient(store, lambda _: None).url == store.url
