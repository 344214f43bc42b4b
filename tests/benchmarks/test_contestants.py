import pytest

from benchmarks.replay.contestants import CONTESTANTS, MAIN, code_of
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
