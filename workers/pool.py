"""The workers of a Ray cluster: as many named actors as a search wants and the cluster can hold.

The actors are detached and found by their names, so all searches of a cluster and a database share them, and a search
that is gone leaves them to the next one. Nobody manages them: each search, every other second, makes those that are
missing. One that has had nothing to do for a while ends itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from autopeft import __version__
from autopeft.exceptions import MachineError, UsageError

from .actor import RayWorker
from .cluster import NAMESPACE, connected, is_elsewhere
from .settings import WorkerSettings

#: A worker without work ends after so long.
IDLE_S = 120.0
#: Nodes of a cluster that has just been started are still joining for so long.
_JOIN_S = 30.0
#: Workers that could not start, one after the other, before the search is given up.
_MAX_FAILURES = 3
_EPSILON = 1e-9


class RayPool:
    """Keeps the workers of one kind on a connected cluster.

    Args:
        ray: The module, connected.
        url: Database, as workers reach it.
        settings: What workers are started with.
        cpus: Cores of each, > 0.
        gpus: GPUs of each, >= 0; None takes one where there are GPUs.
        limit: Most workers; None for as many as fit.
        is_own: Whether the cluster was started for this search and ends with it.
    """

    def __init__(
        self,
        ray: Any,
        url: str,
        settings: WorkerSettings,
        *,
        cpus: float = 1.0,
        gpus: float | None = None,
        limit: int | None = None,
        is_own: bool = False,
    ) -> None:
        self._ray = ray
        self._url = url
        self._cpus = cpus
        self._gpus = self._default_gpus() if gpus is None else gpus
        self._limit = limit
        self._is_own = is_own
        share = self._gpus if 0 < self._gpus < 1 else 1.0
        limits = (settings.memory_limit_bytes, settings.trial_timeout_s)
        kind = (url, self._cpus, self._gpus, settings.allow_code, settings.cohort, *limits, __version__)
        self.name = f"autopeft-{hashlib.sha256(repr(kind).encode()).hexdigest()[:10]}"
        self._settings = replace(
            settings,
            pool=self.name,
            gpu_share=share,
            device="auto" if self._gpus else "cpu",
            threads=max(1, math.floor(self._cpus)),
            idle_timeout_s=IDLE_S,
        )
        self._starting: dict[str, Any] = {}
        self._failures: list[str] = []
        self._give_up_at = time.monotonic() + (0.0 if is_own else _JOIN_S)

    @property
    def size(self) -> int:
        """Workers that the cluster can hold now, up to the limit."""
        fitting = sum(self._fitting(node) for node in self._nodes())
        return fitting if self._limit is None else min(fitting, self._limit)

    def tend(self, wanted: int) -> str | None:
        """Make the workers that are missing.

        Args:
            wanted: How many there is work for.

        Returns:
            Why there are none, in words; None if there are.

        Raises:
            MachineError: If none fits on any node, or none can start.
        """
        try:
            return self._tend(wanted)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise MachineError(f"the Ray cluster is gone: {' '.join(str(error).split())[:300]}") from error

    def _tend(self, wanted: int) -> str | None:
        self._look_at_starting()
        size = self.size
        if size == 0:
            return self._explain_none()
        self._give_up_at = math.inf
        known = {item["name"] for item in self._ray.util.list_named_actors(all_namespaces=True)}
        for index in range(min(size, wanted)):
            name = f"{self.name}-{index}"
            if name not in known:
                self._start(name)
        return None

    def close(self) -> None:
        """Ask the workers of a cluster of our own to give back what they hold; those of others go on."""
        if not self._is_own:
            return
        names = {item["name"] for item in self._ray.util.list_named_actors(all_namespaces=True)}
        asked = []
        for name in sorted(item for item in names if item.startswith(f"{self.name}-")):
            with contextlib.suppress(ValueError):
                asked.append(self._ray.get_actor(name, namespace=NAMESPACE).stop.remote())
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=self._settings.grace_s + 2)

    def _start(self, name: str) -> None:
        made = self._ray.remote(RayWorker).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            # Another search may make it at the same moment.
            get_if_exists=True,
            max_restarts=0,
            num_cpus=self._cpus,
            num_gpus=self._gpus,
        )
        actor = made.remote(self._url, self._settings, socket.gethostname())
        self._starting[name] = actor.id.remote()

    def _look_at_starting(self) -> None:
        """See which of the workers that were made have started, and why others have not."""
        for name, answer in list(self._starting.items()):
            ready, _ = self._ray.wait([answer], timeout=0)
            if not ready:
                continue
            del self._starting[name]
            try:
                self._ray.get(answer)
                self._failures = []
            except self._ray.exceptions.RayError as error:
                self._failures.append(_reason(error))
        if len(self._failures) >= _MAX_FAILURES:
            raise MachineError(f"the workers on the Ray cluster cannot start: {self._failures[-1]}")

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _fitting(self, resources: Mapping[str, float]) -> int:
        """Workers that a node can hold."""
        found = resources.get("CPU", 0.0) / self._cpus
        if self._gpus:
            # A worker of several GPUs takes whole ones, and fractions share one.
            gpus = math.floor(resources.get("GPU", 0.0) + _EPSILON)
            per_gpu = math.floor(1 / self._gpus + _EPSILON) if self._gpus < 1 else 1 / self._gpus
            found = min(found, gpus * per_gpu)
        return math.floor(found + _EPSILON)

    def _default_gpus(self) -> float:
        return 1.0 if any(node.get("GPU", 0.0) >= 1 for node in self._nodes()) else 0.0

    def _explain_none(self) -> str:
        needed = f"{self._cpus:g} CPUs" + (f" and {self._gpus:g} GPUs" if self._gpus else "")
        there = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in self._nodes())
        text = f"no node of the Ray cluster has {needed} for a worker. There are: {there or 'no nodes'}."
        if time.monotonic() < self._give_up_at:
            return f"{text} The search goes on when one joins."
        raise MachineError(f"{text} Ask for less with --worker-cpus and --worker-gpus, or add a node.")


def _reason(error: BaseException) -> str:
    """The last line of what a Ray error carries: the error that was raised over there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__


@contextlib.contextmanager
def ray_pool(
    address: str | None,
    url: str,
    settings: WorkerSettings,
    *,
    cpus: float = 1.0,
    gpus: float | None = None,
    limit: int | None = None,
) -> Iterator[RayPool]:
    """A pool on a cluster, which is started on this machine if no address is given.

    Args:
        address: ``"auto"``, ``"ray://host:port"`` or None.
        url: Database.
        settings: What workers are started with.
        cpus: Cores of each worker, > 0.
        gpus: GPUs of each worker, >= 0; None takes one where there are GPUs.
        limit: Most workers; None for as many as fit.

    Raises:
        UsageError: If the address cannot be read, or workers elsewhere could not reach the database.
        MachineError: If the cluster cannot be used.
    """
    wanted = None if limit is None or address is not None else max(1, math.ceil(limit * cpus))
    with connected(address, cpus=wanted) as ray:
        if url.startswith("sqlite") and is_elsewhere(ray):
            raise UsageError(
                "workers on other machines cannot reach an SQLite file; give a PostgreSQL database with --db or "
                "AUTOPEFT_DB."
            )
        pool = RayPool(ray, url, settings, cpus=cpus, gpus=gpus, limit=limit, is_own=address is None)
        try:
            yield pool
        finally:
            with contextlib.suppress(ray.exceptions.RayError, ConnectionError, RuntimeError):
                pool.close()
