import subprocess
import sys

from autopeft.orchestrate._worker_id import is_dead, worker_id


def test_this_process_is_alive_and_a_finished_one_is_dead() -> None:
    assert not is_dead(worker_id())
    code = "from autopeft.orchestrate._worker_id import worker_id; print(worker_id())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert is_dead(other)


def test_a_reused_pid_is_another_worker() -> None:
    host, pid, start = worker_id().rsplit(":", 2)
    assert is_dead(f"{host}:{pid}:{int(start) - 100}")


def test_nobody_can_tell_about_another_machine() -> None:
    assert not is_dead("elsewhere:1:0")
