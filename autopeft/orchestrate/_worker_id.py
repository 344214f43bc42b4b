"""Who holds a trial: names of workers, and whether one on this machine is still alive."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import psutil

#: The system's clock may be corrected while a process lives, and its start time moves with it.
_CLOCK_SLACK_S = 2


def worker_id(pid: int | None = None) -> str:
    """``host:kernel:pid:start`` of a process; the start time tells it from a later process with the same pid.

    Args:
        pid: A process of this machine; None for this one.
    """
    chosen = os.getpid() if pid is None else pid
    return f"{_place()}:{chosen}:{_start_time(chosen) or 0}"


def local_pid(worker: str) -> int | None:
    """The pid of a process that is alive on this machine; None if it is dead, or nobody can tell from here."""
    found = _read(worker)
    return None if found is None or not _is_alive(*found) else found[0]


def is_dead(worker: str) -> bool:
    """Whether a worker is gone; False wherever nobody can tell from here.

    That is on another machine, in a container with pids of its own even if its host name is the same, and before the
    machine was started last: the lease of such a worker's trial must expire.

    Args:
        worker: A name as `worker_id` gives it; what follows a ``#`` tells several of one process apart.
    """
    found = _read(worker)
    return found is not None and not _is_alive(*found)


def is_here(worker: str) -> bool:
    """Whether it can be told from here if a worker is alive."""
    return _read(worker) is not None


def _read(worker: str) -> tuple[int, int] | None:
    """Pid and start time of a process of this machine; None for one of another, and for other names."""
    if not worker.startswith(f"{socket.gethostname()}:"):
        return None  # most workers of a cluster: where they are is known without asking the kernel
    place, *numbers = worker.partition("#")[0].rsplit(":", 2)
    if place != _place() or len(numbers) != 2 or not all(item.isdecimal() for item in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def _is_alive(pid: int, start: int) -> bool:
    now = _start_time(pid)
    return now is not None and abs(now - start) <= _CLOCK_SLACK_S


def _place() -> str:
    """Where a pid means one process: the host, and a digest of this boot and the namespace of the pids in it."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        kernel = f"{boot.read_text()} {namespace.stat().st_ino}"
    except OSError:
        # Without Linux there are no namespaces.
        kernel = str(int(psutil.boot_time()))
    return f"{socket.gethostname()}:{hashlib.sha256(kernel.encode()).hexdigest()[:12]}"


def _start_time(pid: int) -> int | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time())
    except psutil.NoSuchProcess:
        return None
