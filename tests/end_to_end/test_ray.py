"""Searches on real Ray clusters: one that is started for the search, and one with nodes that come and go."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autopeft.orchestrate import is_dead
from autopeft.store import open_store
from autopeft.study import TrialState
from tests.end_to_end.conftest import SEARCH, CommandLine
from tests.end_to_end.test_workers import ARGS, CRASHING, numbers, trials_of, wait_until
from tests.workers.ray_cluster import HEAD, RayCluster

pytestmark = pytest.mark.slow
FEW = ("--no-baselines", "--confirm-top", "0")


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    made = RayCluster()
    yield made
    made.close()


def test_a_cluster_of_its_own_gives_the_numbers_of_a_local_search_and_leaves_nothing(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the same search with the local executor. A home folder that cannot be written is no obstacle."""
    (command.folder / "nowhere").mkdir(mode=0o500)
    monkeypatch.setenv("HOME", str(command.folder / "nowhere" / "below"))
    before = {path.name for path in Path("/tmp").glob("aray-*")}
    args = (*ARGS, "--trials", "6", "--no-baselines", "--seeds", "1", "--confirm-top", "1")
    with command.popen(*args, "--db", "ray.db", "--executor", "ray", "--workers", "2") as search:
        children: set[int] = set()
        addresses: set[str] = set()
        while search.poll() is None:
            for child in psutil.Process(search.pid).children(recursive=True) if psutil.pid_exists(search.pid) else ():
                children.add(child.pid)
                try:
                    addresses |= {
                        item.laddr.ip for item in child.net_connections("inet") if item.status == psutil.CONN_LISTEN
                    }
                except psutil.Error:
                    continue
            time.sleep(0.5)
        _, err = search.communicate(timeout=280)
    assert search.returncode == 0, err
    assert "Traceback" not in err
    assert addresses, "nothing was seen to listen"
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
    command.run(*args, "--db", "local.db")
    assert numbers(command, "ray.db") == numbers(command, "local.db")
    with open_store(command.folder / "ray.db") as store:
        workers = {item.worker for item in store.load_study(store.list_studies()[0].name).trials}
        assert len(workers) == 2, "both workers had a share"
    assert {path.name for path in Path("/tmp").glob("aray-*")} == before
    wait_until(lambda: not [pid for pid in children if psutil.pid_exists(pid)], "the end of every process")


def test_trials_that_crash_hang_or_eat_memory_end_neither_pool_nor_search(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command.folder / "traps").mkdir()
    monkeypatch.setenv("TRAP_FOLDER", str(command.folder / "traps"))
    (command.folder / "mine.py").write_text(CRASHING)
    for number in range(3):
        (command.folder / "traps" / str(number)).touch()
    args = (*ARGS, "--trials", "6", *FEW, "--record", "mine.py:trap", "--executor", "ray", "--workers", "1")
    args = (*args, "--trial-timeout", "12s", "--memory-limit", "1500M")
    with command.popen(*args) as search:
        wait_until(lambda: trials_of(command, "home/autopeft.db"), "the first trial", search)
        for path in (command.folder / "traps").iterdir():
            path.unlink()
        _, err = search.communicate(timeout=280)
    assert search.returncode == 0, err
    trials = trials_of(command, "home/autopeft.db")
    failures = [item.failure for item in trials if item.failure is not None]
    assert sorted(item.reason for item in failures) == ["crashed", "hung", "out_of_memory"]
    words = " ".join(item.message for item in failures)
    assert "signal 11 (SIGSEGV)" in words
    assert "hung: no sign for 12 s (--trial-timeout)" in words
    assert "over the limit of 1.46 GiB (--memory-limit)" in words
    assert len({item.worker for item in trials}) == 1, "the worker itself lived on"


def test_a_search_that_is_stopped_ends_its_cluster_and_its_workers_give_back_what_they_hold(
    command: CommandLine,
) -> None:
    args = (*ARGS, "--trials", "500", *FEW, "--executor", "ray", "--workers", "1")
    with command.popen(*args) as search:
        wait_until(
            lambda: any(item.state is TrialState.RUNNING for item in trials_of(command, "home/autopeft.db")[2:]),
            "a trial in the middle",
            search,
        )
        family = psutil.Process(search.pid).children(recursive=True)
        search.terminate()
        _, err = search.communicate(timeout=120)
    assert search.returncode == 130, err
    assert "autopeft search --task reviews.csv" in err
    assert "Traceback" not in err
    trials = trials_of(command, "home/autopeft.db")
    assert TrialState.RUNNING not in {item.state for item in trials}
    assert {item.attempts for item in trials if item.state is TrialState.WAITING} <= {0}
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    with open_store(command.folder / "home/autopeft.db") as store:
        assert store.workers() == []
        assert store.drivers() == []


def test_a_node_that_is_lost_is_replaced_by_one_that_joins(command: CommandLine, cluster: RayCluster) -> None:
    first = cluster.add_node()
    args = (*ARGS, "--trials", "8", *FEW, "--executor", "ray", "--address", "auto")
    known = {key: value for key, value in cluster.environment.items() if "RAY" in key}
    environment = {**command.environment, **known, "RAY_ADDRESS": f"{HEAD}:{cluster.port}"}
    with _popen(command, environment, *args) as search:
        wait_until(
            lambda: any(item.state is TrialState.RUNNING for item in trials_of(command, "home/autopeft.db")[1:]),
            "a trial on the first node",
            search,
        )
        cluster.kill_node(first)
        cluster.add_node()
        _, err = search.communicate(timeout=280)
    assert search.returncode == 0, err
    trials = trials_of(command, "home/autopeft.db")
    assert [item.state for item in trials] == [TrialState.COMPLETE] * 8
    assert len({item.worker for item in trials}) == 2
    # The pool outlives the search, for the next one.
    with open_store(command.folder / "home/autopeft.db") as store:
        (left,) = [item for item in store.workers() if not is_dead(item.facts.id)]
    assert left.facts.id == trials[-1].worker


def test_what_is_wrong_with_a_cluster_is_one_message(command: CommandLine, cluster: RayCluster) -> None:
    cluster.add_node()
    args = (*SEARCH, "--trials", "1", *FEW, "--executor", "ray", "--address", cluster.address)
    right = {key: value for key, value in cluster.environment.items() if "RAY" in key}
    cases = {
        "asks for a token; put it into a file": {},
        "does not accept the token": {"RAY_AUTH_TOKEN": "0" * 64},
        "no node of the Ray cluster has 1 CPUs and 3 GPUs for a worker. There are: ": right,
    }
    for message, changes in cases.items():
        flags = ("--worker-gpus", "3") if "GPUs" in message else ()
        with _popen(command, {**command.environment, "HOME": str(command.folder), **changes}, *args, *flags) as search:
            _, err = search.communicate(timeout=200)
        assert search.returncode == 4, err
        assert message in err
        assert err.count("error:") == 1
        assert "0000000" not in err
        assert "Traceback" not in err


def _popen(command: CommandLine, environment: dict[str, str], *args: str) -> subprocess.Popen[str]:
    import sys

    return subprocess.Popen(
        [sys.executable, "-m", "autopeft.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=command.folder,
    )
