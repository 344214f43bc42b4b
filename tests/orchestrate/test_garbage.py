"""Trials of a long search, which the garbage collector is kept away from."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from autopeft.orchestrate import _garbage
from autopeft.orchestrate._executor import LocalExecutor
from autopeft.store import MemoryStore
from tests.orchestrate.test_loop import make_loop
from tests.orchestrate.toys import ToyRunner


def test_the_garbage_collector_leaves_the_trials_of_a_long_search_alone_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_garbage, "_SETTLED_AFTER", 3)
    before, during = state_of_collector(), []
    runner = ToyRunner(hook=lambda _: during.append(state_of_collector()))
    make_loop(MemoryStore(), runner, trials=7, confirm_top=0).run()
    assert set(during) == {before}, "there are models in this process"
    during.clear()
    loop = make_loop(MemoryStore(), runner, trials=7, confirm_top=0)
    monkeypatch.setattr(loop, "_lasting", _garbage.LastingTrials(is_on=True))
    loop.run()
    assert during[0] == before
    assert during[-1][0] > before[0]
    assert during[-1][1] == (_garbage._YOUNG, *before[1][1:])
    assert gc.get_freeze_count() <= before[0]
    assert gc.get_threshold() == before[1]


def state_of_collector() -> tuple[int, tuple[int, int, int]]:
    return gc.get_freeze_count(), gc.get_threshold()


@pytest.mark.parametrize(("name", "lasts"), [("local", False), ("workers", True), ("ray", True)])
def test_only_where_nothing_is_trained_are_trials_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, lasts: bool
) -> None:
    monkeypatch.setattr(LocalExecutor, "name", name)
    assert make_loop(MemoryStore(), ToyRunner())._lasting._is_on == lasts


@pytest.fixture
def settling(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[_garbage.LastingTrials]]:
    """Two searches in one process; the collector is as before afterwards."""
    monkeypatch.setattr(_garbage, "_SETTLED_AFTER", 3)
    usual = gc.get_threshold()
    both = [_garbage.LastingTrials(is_on=True) for _ in range(2)]
    yield both
    for item in both:
        item.end()
    gc.set_threshold(*usual)


def test_of_two_searches_the_last_one_hands_back(settling: list[_garbage.LastingTrials]) -> None:
    before = state_of_collector()
    first, second = settling
    first.settle(3)
    second.settle(2)
    second.settle(4)
    first.end()
    first.end()
    assert gc.get_threshold()[0] == _garbage._YOUNG
    assert gc.get_freeze_count() > before[0]
    second.end()
    assert gc.get_threshold() == before[1]
    assert gc.get_freeze_count() <= before[0]


@pytest.mark.parametrize("young", [0, 200_000])
def test_a_collector_that_is_off_or_rarer_already_stays_so(settling: list[_garbage.LastingTrials], young: int) -> None:
    gc.set_threshold(young, 7, 8)
    settling[0].settle(3)
    assert gc.get_threshold() == (young, 7, 8)
    settling[0].end()
    assert gc.get_threshold() == (young, 7, 8)
