"""Who holds a trial: names of workers, and whether one on this machine is still alive."""

from __future__ import annotations

import os
import socket

import psutil

#: The system's clock may be corrected while a process lives, and its start time moves with it.
_CLOCK_SLACK_S = 2


def worker_id() -> str:
    """``host:pid:start`` of this process; the start time tells it from a later process with the same pid."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid())}"


def is_dead(worker: str) -> bool:
    """Whether a worker ran on this machine and is gone; False if it runs elsewhere, as nobody can tell from here."""
    host, pid, start = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    now = _start_time(int(pid))
    return now is None or abs(now - int(start)) > _CLOCK_SLACK_S


def _start_time(pid: int) -> int | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time())
    except psutil.NoSuchProcess:
        return None
