"""Faults, each caused a few times; `benchmarks/faults.py` causes them by the hundred and prints docs/faults.md's table.

Oracle: a witness who remembers every finished trial from the moment it is seen. Afterwards every one of them must be
there, once and unchanged, none may be RUNNING, and the study must have the number of trials that was asked for.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ray_nodes import kill_ray_nodes
from tests.faults.scenarios import SCENARIOS, SERVER_SCENARIOS
from tests.faults.scene import Scene, Verdict
from tests.store.conftest import Cluster, execute
from tests.store.conftest import cluster as cluster

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.postgres]
_numbers = itertools.count()
_TIMES = {"workers": 4, "search": 2, "clocks": 2}


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path) -> Iterator[Scene]:
    name = f"faults_{next(_numbers)}"
    execute(cluster.url(), f"CREATE DATABASE {name}")
    made = Scene(tmp_path / "scene", cluster.url(name))
    yield made
    made.close()
    execute(cluster.url(), f"DROP DATABASE {name} WITH (FORCE)")


def check(verdict: Verdict) -> None:
    assert verdict.is_clean, verdict
    assert verdict.given_up <= verdict.n_faults // 3, verdict


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_and_nothing_doubled(name: str, scene: Scene) -> None:
    seed = time.time_ns()
    print("seed", seed)
    check(SCENARIOS[name](scene, random.Random(seed), _TIMES.get(name, 1)))


@pytest.mark.parametrize("name", SERVER_SCENARIOS)
def test_nothing_is_lost_with_the_database(name: str, scene: Scene, cluster: Cluster) -> None:
    seed = time.time_ns()
    print("seed", seed)
    check(SERVER_SCENARIOS[name](scene, random.Random(seed), 1, cluster))


def test_nothing_is_lost_with_a_node_of_ray(scene: Scene) -> None:
    """Two nodes of a real cluster, one of which is killed with its worker in the middle of the search."""
    seed = time.time_ns()
    print("seed", seed)
    verdict = kill_ray_nodes(scene, random.Random(seed), 1)
    check(verdict)
    assert verdict.n_trials >= 8, verdict
