from pathlib import Path

import numpy as np
import pytest

from benchmarks import family_comparison
from benchmarks.family_comparison import family, outcomes, report, searched, single
from benchmarks.replay.results import latest, read
from benchmarks.replay.simulate import Replay
from tests.benchmarks.tables import world

WORLD = world(24, seed=3)


def test_families_are_rows_of_one_module_type_only() -> None:
    for row in WORLD.rows:
        types = set(row.point.configuration.module_types)
        assert family(row) == (types.pop() if len(types) == 1 else None)
    parts = searched(WORLD)
    assert set(parts) <= {"lora", "serial_adapter"}
    assert all(len(part) == sum(family(row) == name for row in WORLD.rows) for name, part in parts.items())
    assert parts


def test_outcomes_are_counted_on_the_whole_table() -> None:
    """Oracle: worked from rows chosen here."""
    name, part = next(iter(searched(WORLD).items()))
    n = len(part)
    whole = Replay(order=tuple(range(n + 3)), finished_s=tuple(float(i) for i in range(n + 3)))
    alone = Replay(order=tuple(reversed(range(n))), finished_s=tuple(float(i) for i in range(n)))
    *_, item = [
        found
        for found in outcomes(WORLD, {"made": {1: whole, 2: whole}, f"made/{name}": {1: alone}})
        if found.name == name
    ]
    assert item.n_trials == n
    assert item.together == [WORLD.hypervolumes(range(n))[-1]]
    rows = [i for i, row in enumerate(WORLD.rows) if family(row) == name]
    assert item.alone == pytest.approx([WORLD.hypervolumes(rows)[-1]])
    seen = [WORLD.rows[row].runs[1].value for row in rows]
    assert item.quality_alone == [WORLD.truth[rows[int(np.argmax(seen))]]]


def test_families_are_compared_early_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_comparison, "N_TRIALS", 2)
    name, part = next(iter(searched(WORLD).items()))
    n = len(part)
    run = Replay(order=tuple(range(n)), finished_s=tuple(float(i) for i in range(n)))
    found = outcomes(WORLD, {"made": {0: run}, f"made/{name}": {0: run}})
    assert [item.n_trials for item in found if item.name == name] == [2, n]
    rows = [i for i, row in enumerate(WORLD.rows) if family(row) == name]
    assert found[0].alone == pytest.approx([WORLD.hypervolumes(rows[:2])[-1]])


def test_a_run_is_resumed_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    family_comparison.run([WORLD], path, 2)
    n = len(read(path))
    assert n == 2 * (1 + len(searched(WORLD)))
    family_comparison.run([WORLD], path, 2)
    assert len(read(path)) == n
    digests = {"made": WORLD.digest} | {f"made/{name}": single(WORLD, name).digest for name in searched(WORLD)}
    found = latest(read(path), digests)
    text = report([WORLD], {key[0]: runs for key, runs in found.items()})
    assert "## made" in text
    assert "2 repetitions; 24 configurations in all." in text
    for name in searched(WORLD):
        assert f"| {name} | {len(single(WORLD, name))} |" in text


def test_where_one_family_is_better_it_is_said_why() -> None:
    name, part = next(iter(searched(WORLD).items()))
    n = len(part)
    rows = [i for i, row in enumerate(WORLD.rows) if family(row) == name]
    worst = [int(i) for i in np.argsort(WORLD.truth) if i not in rows][:n]
    bad = Replay(order=tuple(worst + rows)[:n], finished_s=tuple(float(i) for i in range(n)))
    runs = {"made": {}, f"made/{name}": {}}
    for seed in range(12):
        shift = worst[seed % len(worst) :] + worst[: seed % len(worst)]
        runs["made"][seed] = Replay(order=tuple(shift[: max(1, n - seed % 3)] + rows)[:n], finished_s=bad.finished_s)
        runs[f"made/{name}"][seed] = Replay(order=tuple(range(n)), finished_s=bad.finished_s)
    text = report([WORLD], runs)
    assert "Where the combined search is worse:" in text
    assert f"- {name}, hypervolume (-" in text
    assert "its " in text
    assert f"In {n} trials the search of the family sees 100% of it, the combined search {n / 24:.0%}" in text
