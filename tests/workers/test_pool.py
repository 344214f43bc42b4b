"""Which workers a pool makes on a cluster that is only described."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopeft.exceptions import MachineError
from workers.pool import RayPool
from workers.settings import WorkerSettings


class RayError(Exception):
    """As `ray.exceptions.RayError`."""


class FakeRay:
    """A cluster whose actors are names; one that cannot start answers with an error."""

    def __init__(self, *nodes: dict[str, float], failure: str | None = None) -> None:
        self.cluster = list(nodes)
        self.actors: dict[str, dict[str, Any]] = {}
        self.failure = failure
        self.made = 0
        self.arguments: tuple[Any, ...] = ()
        self.exceptions = SimpleNamespace(RayError=RayError)
        self.util = SimpleNamespace(list_named_actors=lambda all_namespaces: [{"name": item} for item in self.actors])

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": item, "NodeManagerHostname": "h"} for item in self.cluster]

    def remote(self, _: type) -> Any:
        def options(**given: Any) -> Any:
            def make(*arguments: Any) -> Any:
                self.made += 1
                self.arguments = arguments
                if self.failure is None:
                    self.actors[given["name"]] = given
                return SimpleNamespace(id=SimpleNamespace(remote=lambda: given["name"]))

            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def wait(self, asked: list[str], **_: Any) -> tuple[list[str], list[str]]:
        return asked, []

    def get(self, _: str) -> str:
        if self.failure is not None:
            raise RayError(f"The actor died.\n  File ...\n{self.failure}")
        return "host:k:1:0"


def pool(ray: FakeRay, **options: Any) -> RayPool:
    return RayPool(ray, "postgresql://u@h/d", WorkerSettings(cache_dir=Path("x")), **options)


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([{"CPU": 4}], {}, 4),
        ([{"CPU": 4}], {"cpus": 2.0}, 2),
        ([{"CPU": 4}, {"CPU": 0}], {"cpus": 3.0}, 1),
        ([{"CPU": 8, "GPU": 2}], {}, 2),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], {"gpus": 0.0}, 16),
        ([{"CPU": 8, "GPU": 2}], {"gpus": 0.5}, 4),
        ([{"CPU": 8, "GPU": 2}], {"gpus": 0.3}, 6),
        ([{"CPU": 3, "GPU": 2}], {"gpus": 0.5}, 3),
        ([{"CPU": 8, "GPU": 2}], {"gpus": 2.0}, 1),
        ([{"CPU": 8}], {"limit": 3}, 3),
    ],
)
def test_as_many_workers_as_fit(nodes: list[dict[str, float]], options: dict[str, Any], expected: int) -> None:
    ray = FakeRay(*nodes)
    made = pool(ray, **options)
    assert made.size == expected
    assert made.tend(100) is None
    assert len(ray.actors) == expected
    assert all(item["lifetime"] == "detached" and item["namespace"] == "autopeft" for item in ray.actors.values())


def test_no_more_than_there_is_work_for_and_lost_ones_again() -> None:
    ray = FakeRay({"CPU": 4})
    made = pool(ray)
    made.tend(2)
    assert len(ray.actors) == 2
    made.tend(2)
    assert ray.made == 2, "those that are there are not made again"
    ray.actors.popitem()
    made.tend(2)
    assert len(ray.actors) == 2
    ray.cluster.append({"CPU": 2})
    made.tend(100)
    assert len(ray.actors) == 6


def test_searches_of_one_database_share_a_pool_and_others_do_not() -> None:
    ray = FakeRay({"CPU": 4})
    assert pool(ray).name == pool(ray).name
    settings = WorkerSettings(cache_dir=Path("x"), allow_code=True)
    others = {pool(ray, cpus=2.0).name, RayPool(ray, "postgresql://u@h/e", settings).name, pool(ray, gpus=0.5).name}
    assert pool(ray).name not in others
    assert len(others) == 3
    assert "u@h" not in "".join(others)


def test_limits_of_a_trial_reach_the_workers_and_other_limits_are_another_pools() -> None:
    def made(**limits: Any) -> tuple[str, WorkerSettings]:
        ray = FakeRay({"CPU": 1})
        found = RayPool(ray, "postgresql://u@h/d", WorkerSettings(cache_dir=Path("x"), **limits))
        found.tend(1)
        return found.name, ray.arguments[1]

    given: list[dict[str, Any]] = [{}, {"memory_limit_bytes": 2**31}, {"trial_timeout_s": 9.0}]
    pools = [made(**limits) for limits in given]
    assert len({name for name, _ in pools}) == 3
    reached = [(settings.memory_limit_bytes, settings.trial_timeout_s) for _, settings in pools]
    assert reached == [(None, 3600.0), (2**31, 3600.0), (None, 9.0)]


def test_no_room_is_told_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay({"CPU": 4}, {"CPU": 2, "GPU": 0})
    assert "The search goes on when one joins" in str(pool(ray, gpus=1.0).tend(1)), "nodes may still be joining"
    monkeypatch.setattr("workers.pool._JOIN_S", 0.0)
    made = pool(ray, gpus=1.0)
    words = r"no node of the Ray cluster has 1 CPUs and 1 GPUs for a worker\. There are: 4 CPUs, 0 GPUs; 2 CPUs, 0 GPUs"
    with pytest.raises(MachineError, match=words):
        made.tend(1)


def test_a_cluster_that_loses_its_nodes_is_waited_for() -> None:
    ray = FakeRay({"CPU": 1})
    made = pool(ray)
    assert made.tend(1) is None
    ray.cluster.clear()
    assert "The search goes on when one joins" in str(made.tend(1))
    ray.cluster.append({"CPU": 1})
    assert made.tend(1) is None


def test_workers_that_cannot_start_are_given_up_with_the_reason() -> None:
    ray = FakeRay({"CPU": 1}, failure="ModuleNotFoundError: No module named 'autopeft'")
    made = pool(ray)
    for _ in range(3):
        made.tend(1)
    with pytest.raises(MachineError, match=r"cannot start: ModuleNotFoundError: No module named 'autopeft'"):
        made.tend(1)
    assert ray.made == 3
