"""The transfer study on tiny tables made up from related synthetic tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replay.world import World
from benchmarks.transfer import Key, append, curves, finished, key_of, read, report, run, search
from tests.benchmarks.tables import world


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    return {"left": replace(world(40), name="left"), "right": replace(world(40, noise=0.02), name="right")}


@pytest.fixture(scope="module")
def results(worlds: dict[str, World], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "transfer.jsonl"
    run(worlds, n_seeds=1, n_trials=12, results=path)
    return path


def test_every_table_is_searched_in_every_way(worlds: dict[str, World], results: Path) -> None:
    found = read(results)
    assert {(key.table, key.arm, key.seed) for key in found} == {
        (name, arm, 0) for name in worlds for arm in ("cold", "warm", "reversed")
    }
    for key, order in found.items():
        assert len(order) == len(set(order)) == 18
        assert key == key_of(worlds, key.table, key.arm, 0)


def test_a_finished_run_is_not_repeated(worlds: dict[str, World], results: Path) -> None:
    before = results.read_text()
    run(worlds, n_seeds=1, n_trials=12, results=results)
    assert results.read_text() == before


def test_the_cold_arm_is_the_plain_search(worlds: dict[str, World], results: Path) -> None:
    order = read(results)[key_of(worlds, "left", "cold", 0)]
    assert order == search(worlds["left"], seed=0, n_trials=18)


def test_a_finished_search_holds_what_its_seed_saw(worlds: dict[str, World]) -> None:
    here = worlds["left"]
    straight, turned = (finished(here, [3, 1, 2], 1001, is_reversed=flag) for flag in (False, True))
    values = [item.values["accuracy"] for item in straight.trials]
    assert values == [here.rows[row].runs[1].value for row in (3, 1, 2)]
    assert [-value for value in values] == [item.values["accuracy"] for item in turned.trials]


def test_the_report_counts_what_the_results_hold(worlds: dict[str, World], results: Path) -> None:
    text = report(worlds, read(results), n_trials=12)
    assert text.count("| left |") == text.count("| right |") == 3
    curve = curves(worlds, read(results), "left", "warm")[0]
    assert f"{curve[11]:.4f}" in text
    assert "left, warm minus cold" in text


def test_results_of_other_tables_or_cut_lines_do_not_count(worlds: dict[str, World], results: Path) -> None:
    other = results.with_name("other.jsonl")
    other.write_text(results.read_text() + '{"table": "left", "arm"')
    append(other, Key(table="left", digests="old", arm="cold", seed=5, code="old"), [1, 2])
    assert np.array_equal(report(worlds, read(other), n_trials=12), report(worlds, read(results), n_trials=12))
