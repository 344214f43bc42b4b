import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from autopeft.orchestrate._worker_id import is_dead, is_here, local_pid, worker_id

PRINT = "from autopeft.orchestrate._worker_id import worker_id; print(worker_id())"
UNSHARE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")


def other_worker(*prefix: str) -> str:
    """The id of a worker that has ended."""
    command = [*prefix, sys.executable, "-c", PRINT]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_this_process_is_alive_and_a_finished_one_is_dead() -> None:
    assert not is_dead(worker_id())
    assert is_dead(other_worker())


def test_a_reused_pid_is_another_worker() -> None:
    place, pid, start = worker_id().rsplit(":", 2)
    assert is_dead(f"{place}:{pid}:{int(start) - 100}")


def test_several_names_of_one_process_are_that_process() -> None:
    assert not is_dead(f"{worker_id()}#12")
    assert local_pid(f"{worker_id()}#12") == os.getpid()
    assert is_dead(f"{other_worker()}#1")


@pytest.mark.parametrize("name", ["elsewhere:1:0", "somebody", "", "here:x", "#", ":::"])
def test_nobody_can_tell_about_another_machine_or_name(name: str) -> None:
    # Made here: a process id in a test's name would differ between the processes that run the tests.
    name = name.replace("here", worker_id()) if name == "here:x" else name
    assert not is_dead(name)
    assert not is_here(name)
    assert local_pid(name) is None
    assert is_here(worker_id())


def test_nobody_can_tell_from_the_host_name_alone() -> None:
    """The ids in older databases have nothing else."""
    host = worker_id().split(":")[0]
    assert not is_dead(f"{host}:1:0")


def test_nobody_can_tell_about_another_container_with_this_host_name() -> None:
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0:
        pytest.skip("this system does not let us make a namespace of pids")
    other = other_worker(*UNSHARE)
    assert other.split(":")[0] == worker_id().split(":")[0]
    assert not is_dead(other)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="this system has no namespaces of pids")
@pytest.mark.parametrize("changed", ["boot_id", "pid"])
def test_another_boot_or_namespace_is_another_place(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    here = worker_id().rsplit(":", 2)[0]
    read, stat = Path.read_text, Path.stat
    if changed == "boot_id":
        monkeypatch.setattr(Path, "read_text", lambda path: f"not {read(path)}")
    else:
        monkeypatch.setattr(Path, "stat", lambda path: stat(path.parents[1]))
    there = worker_id().rsplit(":", 2)[0]
    assert here != there
    assert here.split(":")[0] == there.split(":")[0]


def test_without_namespaces_the_boot_time_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    gone = f"{worker_id().rsplit(':', 2)[0]}:{2**22}:0"
    assert is_dead(gone)
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    assert not is_dead(gone)


def test_a_child_is_named_as_it_names_itself_and_found_by_its_name_while_it_lives() -> None:
    command = [sys.executable, "-c", f"import sys; {PRINT}; sys.stdout.flush(); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        own = child.stdout.readline().strip()
        assert worker_id(child.pid) == own
        assert local_pid(own) == child.pid
        child.communicate()
    assert local_pid(own) is None
    assert is_dead(worker_id(child.pid))
    assert local_pid("elsewhere:k:1:0") is None
