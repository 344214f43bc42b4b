"""Trials of a long search, which the garbage collector is kept away from."""

from __future__ import annotations

import gc

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
