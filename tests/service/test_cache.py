from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autopeft.exceptions import NotFoundError
from autopeft.service._cache import StudyCache
from autopeft.store import SqlStore
from tests.cli.conftest import _write_study
from tests.export.studies import full_study, hostile_study
from tests.store.builders import FAILURE, claimed

NAME = full_study().spec.name


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with SqlStore(tmp_path / "a.db") as made:
        _write_study(made, full_study())
        yield made


def test_a_study_is_always_the_one_that_is_stored(store: SqlStore) -> None:
    cache = StudyCache(store)
    assert cache.load(NAME) == store.load_study(NAME)
    number = claimed(store, NAME, rank=77).number
    assert cache.load(NAME) == store.load_study(NAME)
    store.fail_trial(NAME, number, "w", FAILURE)
    store.set_attribute(NAME, "headline", "new")
    assert cache.load(NAME) == store.load_study(NAME)


def test_what_is_not_there_is_neither_found_nor_kept(store: SqlStore) -> None:
    cache = StudyCache(store)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            cache.load("nothing")
    assert cache._kept == {}


def test_only_so_many_are_kept(store: SqlStore) -> None:
    for i in range(4):
        _write_study(store, hostile_study(f"s{i}"))
    cache = StudyCache(store, size=2)
    for name in ("s0", "s1", "s0", "s2"):
        assert cache.load(name).spec.name == name
    assert list(cache._kept) == ["s0", "s2"]


def test_many_threads_read_one_study(store: SqlStore) -> None:
    cache = StudyCache(store)
    expected = store.load_study(NAME)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(lambda _: cache.load(NAME), range(40)))
