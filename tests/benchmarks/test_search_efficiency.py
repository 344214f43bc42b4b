from pathlib import Path

import pytest

from benchmarks import search_efficiency
from benchmarks.replay.results import append, read
from benchmarks.search_efficiency import _do, table_paths, tasks
from tests.benchmarks.tables import world


def test_random_search_goes_on_for_longer_than_the_others() -> None:
    found = list(tasks([world(12)], ["random", "tpe"], n_seeds=2, n_trials=8, workers=(1, 4)))
    assert len(found) == 8
    assert {(item.sampler, item.workers): item.trials for item in found} == {
        ("random", 1): 12,  # not more than the table has
        ("random", 4): 8,
        ("tpe", 1): 8,
        ("tpe", 4): 8,
    }


def test_a_task_is_done_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = world(12)
    monkeypatch.setattr(search_efficiency, "load", lambda path: here)
    (task,) = [item for item in tasks([here], ["nsga2"], n_seeds=2, n_trials=6, workers=(2,)) if item.seed == 1]
    done, found = _do((tmp_path, task))
    assert done == task
    assert len(found.order) == 6
    append(tmp_path / "r.jsonl", done, found)
    ((again, stored),) = read(tmp_path / "r.jsonl")
    assert again == task
    assert stored.order == found.order
    monkeypatch.setattr(search_efficiency, "load", lambda path: world(11))
    with pytest.raises(ValueError, match="changed while it was replayed"):
        _do((tmp_path, task))


def test_tables_that_are_not_there_are_named() -> None:
    with pytest.raises(SystemExit, match=r"no table .*nowhere\.parquet"):
        table_paths(["nowhere"])
