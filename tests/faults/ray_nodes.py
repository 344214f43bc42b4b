"""Nodes of a Ray cluster that lose their power in the middle of a search."""

from __future__ import annotations

import random
import time

from tests.faults.scenarios import judged, rounds
from tests.faults.scene import Scene, Verdict, finish, wait_until
from tests.workers.ray_cluster import HEAD, RayCluster


def kill_ray_nodes(scene: Scene, rng: random.Random, n: int) -> Verdict:
    """SIGKILL of a node with all its processes; another node joins."""
    verdict = Verdict(fault="Ray node killed")
    cluster = RayCluster()
    try:
        nodes = [cluster.add_node() for _ in range(2)]
        cluster.wait_for_nodes()
        known = {key: value for key, value in cluster.environment.items() if key.startswith("RAY_")}
        known["RAY_ADDRESS"] = f"{HEAD}:{cluster.port}"
        for study, n_trials, left in rounds(verdict, n):
            with judged(scene, verdict, n_trials, study):
                search = scene.search(n_trials, "--executor", "ray", "--address", "auto", study=study, **known)
                while left and search.poll() is None:
                    seen = scene.n_finished(study)
                    wait_until(
                        lambda seen=seen, study=study, search=search: (
                            scene.n_finished(study) > seen or search.poll() is not None
                        ),
                        "a trial",
                    )
                    time.sleep(rng.uniform(0.0, 1.0))
                    if search.poll() is not None:
                        break
                    cluster.kill_node(nodes.pop(rng.randrange(2)))
                    nodes.append(cluster.add_node())
                    verdict.n_faults += 1
                    left -= 1
                finish(search)
    finally:
        cluster.close()
    return verdict
