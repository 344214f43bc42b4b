"""What Prometheus reads: counted when it is read, from the database that all processes share."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from autopeft.store import SqlStore, StoreTotals, Submissions
from autopeft.study import TrialState

#: What `Metrics.text` is.
MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
#: Upper bounds of seconds per trial and per request.
_TRIAL_BUCKETS: Final = (1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Bytes that a worker says of its GPU, by what the metric calls them.
_GPU_MEMORY: Final = {"total": "gpu_memory_bytes", "used": "gpu_memory_used_bytes"}


class Metrics:
    """Counters of this process and gauges over the database.

    Trials that end while the service runs are counted in the histogram of seconds per trial, wherever they run.

    Args:
        totals: Trials over all studies.
        store: Workers and drivers.
        submissions: The queue.
    """

    def __init__(self, totals: StoreTotals, store: SqlStore, submissions: Submissions) -> None:
        self._totals = totals
        self._lock = threading.Lock()
        self._since = totals.now()
        self._seen: set[int] = set()
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(totals, store, submissions))
        self._trials = Histogram(
            "autopeft_trial_seconds",
            "Seconds from the last start of a trial to its end, of trials that ended while the service ran.",
            ["state"],
            buckets=_TRIAL_BUCKETS,
            registry=self._registry,
        )
        self._requests = Counter(
            "autopeft_http_requests",
            "Requests answered, by route and status.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "autopeft_http_request_seconds",
            "Seconds that answering took.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            method: HTTP method.
            route: The route's path, with names in the place of values.
            status: HTTP status.
            seconds: How long it took.
        """
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format.

        Raises:
            StoreError: If the database cannot be asked.
        """
        with self._lock:
            ended = self._totals.ended_since(self._since)
            for trial in ended:
                if trial.id not in self._seen:
                    self._trials.labels(trial.state.value).observe(trial.duration_s)
            if ended:
                self._since = ended[-1].finished_at
                # The next look begins at this moment, and what ended at it is seen already.
                self._seen = {trial.id for trial in ended if trial.finished_at == self._since}
        return bytes(generate_latest(self._registry))


class _Gauges(Collector):
    """What the database says at the moment it is asked."""

    def __init__(self, totals: StoreTotals, store: SqlStore, submissions: Submissions) -> None:
        self._totals = totals
        self._store = store
        self._submissions = submissions

    def describe(self) -> list[Metric]:
        """Nothing: describing would ask the database when the registry is made."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask the database."""
        yield from self._trials()
        yield from self._searches()
        yield from self._workers()

    def _trials(self) -> Iterator[Metric]:
        counts = self._totals.trial_counts()
        driven = {lease.study for lease in self._store.drivers() if not lease.is_expired}
        everything: Tally[TrialState] = Tally()
        for states in counts.values():
            everything.update(states)
        total = GaugeMetricFamily("autopeft_trials", "Trials of all studies, by state.", labels=["state"])
        # A label for every study that ever was would grow without end.
        own = GaugeMetricFamily(
            "autopeft_study_trials", "Trials of studies that are driven now, by state.", labels=["study", "state"]
        )
        for state in TrialState:
            total.add_metric([state.value], everything[state])
            for study in sorted(driven):
                own.add_metric([study, state.value], counts.get(study, {}).get(state, 0))
        yield total
        yield own

    def _searches(self) -> Iterator[Metric]:
        searches = GaugeMetricFamily("autopeft_searches", "Submitted searches, by state.", labels=["state"])
        found = self._submissions.counts()
        for state, count in found.items():
            searches.add_metric([state.value], count)
        yield searches
        queue = GaugeMetricFamily("autopeft_queue_length", "Submitted searches that wait for a driver.")
        queue.add_metric([], len(self._submissions.queue()))
        yield queue

    def _workers(self) -> Iterator[Metric]:
        records = self._store.workers()
        workers = GaugeMetricFamily(
            "autopeft_workers", "Workers, by state; lost ones were not heard of.", labels=["state"]
        )
        states = Tally("lost" if item.is_expired else item.facts.state.value for item in records)
        for state in ("starting", "idle", "working", "stopping", "lost"):
            workers.add_metric([state], states[state])
        yield workers
        memory = GaugeMetricFamily(
            "autopeft_worker_gpu_memory_bytes",
            "Memory of the GPU that a worker uses, where the worker says so.",
            labels=["worker", "host", "gpu", "kind"],
        )
        for item in records:
            facts = item.facts
            for kind, key in _GPU_MEMORY.items():
                value = facts.resources.get(key)
                if not item.is_expired and isinstance(value, int | float):
                    memory.add_metric([facts.id, facts.host, str(facts.resources.get("device", "")), kind], value)
        yield memory
