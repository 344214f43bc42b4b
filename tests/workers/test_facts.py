from __future__ import annotations

import json
import os

from workers.facts import machine_resources, usable_cpus


def test_a_worker_tells_its_cores_and_memory() -> None:
    found = machine_resources()
    assert json.loads(json.dumps(found)) == found
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert found["memory_bytes"] > 2**26
