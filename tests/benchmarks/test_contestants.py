import pytest

from benchmarks.replay.contestants import CONTESTANTS, MAIN, code_of, make_stop
from benchmarks.replay.report import LABELS
from benchmarks.replay.simulate import replay
from tests.benchmarks.tables import world

WORLD = world(30)


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_every_contestant_searches_the_table(name: str) -> None:
    found = replay(WORLD, CONTESTANTS[name](WORLD, 0), n_trials=12, n_workers=2)
    assert len(set(found.order)) == 12


def test_every_contestant_has_a_label_and_the_main_ones_exist() -> None:
    assert set(LABELS) == set(CONTESTANTS)
    assert set(MAIN) <= set(CONTESTANTS)


def test_the_code_of_a_rival_is_not_that_of_ours() -> None:
    assert len({code_of(name) for name in ("bayesian", "random", "tpe", "autopeft")}) == 4
    assert code_of("tpe") == code_of("gp")


def test_no_pruner_stops_nothing() -> None:
    assert make_stop(WORLD, "none") is None


@pytest.mark.parametrize("name", ["pareto", "median", "mo_asha"])
def test_pruners_stop_trials_at_the_rungs_of_the_table(name: str) -> None:
    """Rungs of the made-up table lie the same below the end for all: their order is the true one."""
    found = replay(WORLD, CONTESTANTS["random"](WORLD, 1), n_trials=30, seed=1, stop=make_stop(WORLD, name))
    assert found.stopped_at
    assert set(found.stopped_at.values()) <= {0, 1}
    assert len(found.order) == 30
    front = WORLD.hypervolumes(found.order, found.stopped_at)[-1]
    assert front > 0.9


def test_a_pruner_changes_the_code() -> None:
    assert code_of("bayesian", "pareto") != code_of("bayesian")
