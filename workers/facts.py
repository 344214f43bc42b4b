"""What a worker says of its machine."""

from __future__ import annotations

import os
from typing import Any

import psutil


def machine_resources() -> dict[str, Any]:
    """Cores that this process may use and the machine's memory, JSON-ready; the engine adds its devices."""
    return {"cpus": usable_cpus(), "memory_bytes": psutil.virtual_memory().total}


def usable_cpus() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
