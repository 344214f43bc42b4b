from pathlib import Path

from benchmarks.replay.results import Task, append, latest, missing, read
from benchmarks.replay.simulate import Replay


def task(seed: int = 0, trials: int = 5, code: str = "a", digest: str = "d") -> Task:
    return Task(table="t", digest=digest, sampler="s", code=code, workers=1, seed=seed, pruner="none", trials=trials)


def found(*order: int) -> Replay:
    return Replay(order=order, finished_s=tuple(float(i) for i in order), stopped_at={1: 0}, sources={"model": 2})


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    append(path, task(), found(4, 2))
    append(path, task(seed=1), found(3))
    assert read(path) == [(task(), found(4, 2)), (task(seed=1), found(3))]


def test_a_line_cut_short_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, task(), found(4, 2))
    append(path, task(seed=1), found(3))
    path.write_text(path.read_text()[:-20])
    assert [item[0].seed for item in read(path)] == [0]
    assert missing([task(), task(seed=1)], path) == [task(seed=1)]


def test_longer_replays_stand_for_shorter_ones(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, task(trials=5), found(4, 2))
    wanted = [task(trials=3), task(trials=6), task(code="b", trials=3), task(digest="e", trials=3)]
    assert missing(wanted, path) == wanted[1:]
    assert missing(wanted, tmp_path / "absent.jsonl") == wanted


def test_only_the_newest_code_on_the_table_as_it_is_counts() -> None:
    lines = [
        (task(seed=0, code="old"), found(1)),
        (task(seed=1, code="old"), found(2)),
        (task(seed=0, code="new"), found(3)),
        (task(seed=0, code="new", trials=9), found(3, 4)),
        (task(seed=0, code="new", trials=2), found(3)),
        (task(seed=5, code="new", digest="other"), found(6)),
    ]
    assert latest(lines, {"t": "d"}) == {("t", "s", 1, "none"): {0: found(3, 4)}}
