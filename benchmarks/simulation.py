"""A thousand workers and a hundred thousand trials: does the scheduler keep up, and does its memory stay flat?

    python benchmarks/simulation.py                          # PostgreSQL on a server of its own
    python benchmarks/simulation.py --workers 100 --trials 5000 --seconds 0.2
    python benchmarks/simulation.py --sqlite

Training is made up: a trial takes a random time and gives a made-up measurement. Everything else is what a cluster
runs: the search loop with its sampler, the executor for remote workers, the driver's lease, the store. A worker claims
a trial, keeps its lease and its own entry alive by heartbeats, and writes the result; many of them share a process, as
there are not so many cores here as there would be machines. Some workers stop in the middle of a trial and are never
heard of again: their trials must be put back and done by others.

In the end every trial must be there once, COMPLETE, with one measurement and one claim that finished it. Beside trials
per second stand processor milliseconds per trial of the driver, the workers and the server: on a machine with other
work they say more than the clock does.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import os
import queue
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: How often a worker says what it does and keeps its trial's lease, as `workers.heartbeat` does.
BEAT_S = 5.0
#: How long a worker waits before it asks again for a trial, at first and at most, as `workers.supervisor` does.
IDLE_S = (0.25, 2.0)
_LIMIT = 500.0


def main() -> None:
    """Parse arguments, simulate, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1.5, help="mean time of a trial")
    parser.add_argument("--lease", type=float, default=20.0, help="seconds of a trial's lease")
    parser.add_argument("--lost", type=int, default=20, help="workers that stop in the middle of a trial")
    parser.add_argument("--processes", type=int, default=2, help="that the workers share")
    parser.add_argument(
        "--threads", type=int, default=5, help="of each process: so many workers wait for the store at once"
    )
    parser.add_argument("--sqlite", action="store_true", help="use SQLite instead of PostgreSQL")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        if arguments.sqlite:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="autopeft-simulation-"))
            url = f"sqlite:///{folder}/simulation.db"
        else:
            from benchmarks.dashboard import postgres

            url = stack.enter_context(postgres())
        result = simulate(url, arguments)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def simulate(url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run driver and workers, and check what they left."""
    from autopeft.store import open_store

    context = multiprocessing.get_context("spawn")
    stop, told = context.Event(), context.Queue()
    with open_store(url) as store:
        prepared = make_search(arguments.trials)
        store.ensure_study(prepared.spec)
        shares = [arguments.workers // arguments.processes] * arguments.processes
        shares[0] += arguments.workers - sum(shares)
        lost = [arguments.lost // arguments.processes] * arguments.processes
        processes = [
            context.Process(
                target=host,
                args=(url, i, shares[i], lost[i], arguments.seconds, arguments.lease, arguments.threads, stop, told),
            )
            for i in range(arguments.processes)
        ]
        for process in processes:
            process.start()
        for _ in processes:
            assert told.get(timeout=120) == "ready"
        print(
            f"{arguments.trials} trials of {arguments.seconds} s on average, {arguments.workers} workers in "
            f"{arguments.processes} processes, {arguments.lost} of them lost on the way; {os.cpu_count()} cores, "
            f"load {os.getloadavg()[0]:.1f} before it began"
        )
        watch = Watch(store, prepared.spec.name, [process.pid or 0 for process in processes], url)
        start = time.perf_counter()
        with watch:
            drive(store, prepared)
        wall_s = time.perf_counter() - start
        spent = watch.spent(arguments.trials)
        stop.set()
        for process in processes:
            process.join(60)
        check(store, prepared.spec.name, arguments)
        n_bytes = None if arguments.sqlite else database_size(store)
    result = {"wall_s": wall_s, "trials_per_s": arguments.trials / wall_s, "processor_ms": spent, "rows": watch.rows}
    result["database_bytes"] = n_bytes
    tell(result, arguments.trials)
    return result


def make_search(trials: int) -> Any:
    """A random search of the default space, on the shapes of MiniLM."""
    from tests.orchestrate.toys import prepared_search

    return prepared_search(trials=trials, confirm_top=0)


def drive(store: Any, prepared: Any) -> None:
    """What `autopeft search --executor workers` does once everything is loaded."""
    from autopeft.orchestrate import SearchLoop, SilentProgress
    from autopeft.orchestrate._remote import RemoteExecutor

    progress = SilentProgress()
    SearchLoop(prepared, store, RemoteExecutor(store, progress), progress).run()


@dataclass(order=True)
class Event:
    """Something that a simulated worker does at a time."""

    at: float
    order: int
    act: Callable[[], None] = field(compare=False)


class Host:
    """Runs many simulated workers in a few threads: whoever's time has come acts."""

    def __init__(self, url: str, index: int, n: int, n_lost: int, mean_s: float, lease_s: float) -> None:
        from autopeft.store import open_store
        from benchmarks.store import make_measurement

        self.store = open_store(url)
        self.mean_s, self.lease_s = mean_s, lease_s
        self.rng = random.Random(index)
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._n = 0
        numbers = np.random.default_rng(index)
        self.measurements = [make_measurement(numbers) for _ in range(200)]
        self.workers = [Worker(self, f"node{index}:simulated:{i + 1}:0", is_lost=i < n_lost) for i in range(n)]

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Have something done so many seconds from now."""
        with self._lock:
            self._n += 1
            heapq.heappush(self._events, Event(time.monotonic() + seconds, self._n, act))

    def run(self, n_threads: int, stop: Any) -> None:
        """Act until it is told to stop."""
        due: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threads = [threading.Thread(target=_act, args=(due,)) for _ in range(n_threads)]
        for thread in threads:
            thread.start()
        for worker in self.workers:
            self.at(self.rng.uniform(0, 1), worker.begin)
        while not stop.is_set():
            with self._lock:
                now = time.monotonic()
                while self._events and self._events[0].at <= now:
                    due.put(heapq.heappop(self._events).act)
            time.sleep(0.02)
        for _ in threads:
            due.put(None)
        for thread in threads:
            thread.join()
        for worker in self.workers:
            worker.end()


def _act(due: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (act := due.get()) is not None:
        act()


class Worker:
    """One simulated worker: what the supervisor of a real one asks of the store."""

    def __init__(self, host: Host, name: str, *, is_lost: bool) -> None:
        from autopeft.store import WorkerFacts

        self._host = host
        self._facts = WorkerFacts(id=name, host=name.partition(":")[0], pid=int(name.split(":")[2]))
        self._is_lost = is_lost
        self._held: tuple[str, Any] | None = None
        self._pause_s = IDLE_S[0]
        self._n_done = 0

    def begin(self) -> None:
        self._beat()
        self.claim()

    def end(self) -> None:
        self._host.store.retire_worker(self._facts.id)

    def claim(self) -> None:
        """Ask for a trial."""
        self._begin(self._host.store.claim_next(self._facts.id, **self._wanted()))

    def _wanted(self) -> dict[str, Any]:
        prefer = () if self._facts.study is None else (self._facts.study,)
        return {"lease_s": self._host.lease_s, "prefer": prefer}

    def _begin(self, found: Sequence[tuple[str, Any]]) -> None:
        """Work on what was given; ask again if it is nothing, and the longer nothing waits, the more rarely."""
        if not found:
            self._host.at(self._pause_s * self._host.rng.uniform(0.7, 1.3), self.claim)
            self._pause_s = min(2 * self._pause_s, IDLE_S[1])
            return
        self._pause_s = IDLE_S[0]
        self._held = found[0]
        if self._is_lost and self._n_done >= 5:
            return  # never heard of again
        self._host.at(self._host.rng.expovariate(1 / self._host.mean_s), self.finish)

    def finish(self) -> None:
        """Write the result, and take the next trial."""
        from autopeft.exceptions import TrialConflictError

        assert self._held is not None
        name, trial = self._held
        self._held = None
        measured = self._host.measurements[trial.number % len(self._host.measurements)]
        measured = replace(measured, fidelity=trial.draft.fidelity, seed=trial.draft.seed)
        try:
            found = self._host.store.complete_and_claim(
                name, trial.number, self._facts.id, [measured], **self._wanted()
            )
        except TrialConflictError:
            # On a machine that is much too slow a lease may have expired: then it is another worker's.
            self.claim()
            return
        self._n_done += 1
        self._begin(found)

    def _beat(self) -> None:
        from autopeft.store import WorkerState

        if self._is_lost and self._n_done >= 5:
            return
        held = self._held
        study, trials = (None, ()) if held is None else (held[0], (held[1].number,))
        state = WorkerState.IDLE if held is None else WorkerState.WORKING
        self._facts = replace(self._facts, study=study or self._facts.study, trials=trials, state=state)
        self._host.store.announce_worker(self._facts, self._host.lease_s)
        self._host.at(min(BEAT_S, self._host.lease_s / 4), self._beat)


def host(
    url: str, index: int, n: int, n_lost: int, mean_s: float, lease_s: float, n_threads: int, stop: Any, told: Any
) -> None:
    """A process with simulated workers."""
    # Workers are other machines: they take no time from the search and the server when these want it.
    os.nice(10)
    made = Host(url, index, n, n_lost, mean_s, lease_s)
    made.store.drivers()
    told.put("ready")
    made.run(n_threads, stop)


class Watch:
    """Looks at progress, memory and processor time while the simulation runs."""

    def __init__(self, store: Any, study: str, pids: list[int], url: str) -> None:
        from benchmarks.store import servers

        self._store, self._study = store, study
        self._groups = {"driver": [psutil.Process()], "workers": [psutil.Process(pid) for pid in pids]}
        if url.startswith("postgres"):
            self._groups["server"] = servers(url)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begun = {name: _processor_s(found) for name, found in self._groups.items()}
        self._start = time.perf_counter()
        self.rows: list[dict[str, float]] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._done.wait(10):
            self._look()

    def _look(self) -> None:
        from sqlalchemy import func, select

        from autopeft.store._models import TrialRow

        with self._store._glancing() as connection:
            n = connection.execute(select(func.count()).where(TrialRow.state == "COMPLETE")).scalar_one()
        row = {"seconds": time.perf_counter() - self._start, "finished": float(n)}
        row |= {f"{name}_mib": _memory(found) / 2**20 for name, found in self._groups.items()}
        before = self.rows[-1] if self.rows else {"seconds": 0.0, "finished": 0.0}
        rate = (row["finished"] - before["finished"]) / max(row["seconds"] - before["seconds"], 1e-9)
        memory = ", ".join(f"{name} {row[f'{name}_mib']:.0f}" for name in self._groups)
        print(f"{row['seconds']:7.0f} s {n:>8} finished, {rate:6.0f} /s; MiB: {memory}", flush=True)
        self.rows.append(row)

    def spent(self, n: int) -> dict[str, float]:
        """Processor milliseconds per trial so far, by who spent them."""
        return {name: 1e3 * (_processor_s(found) - self._begun[name]) / n for name, found in self._groups.items()}


def _processor_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            if process.name() == "postgres":
                total += times.children_user + times.children_system
                total += sum(sum(child.cpu_times()[:2]) for child in process.children())
    return total


def _memory(processes: list[psutil.Process]) -> float:
    """Memory of their own, in bytes: what a server's processes share is counted once."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            whole = [process, *(process.children() if process.name() == "postgres" else ())]
            for item in whole:
                with suppress(psutil.NoSuchProcess):
                    total += item.memory_full_info().pss
    return total


def check(store: Any, study: str, arguments: argparse.Namespace) -> None:
    """Every trial is there once, and was finished once."""
    from sqlalchemy import text

    queries = {
        "trials": "SELECT count(*) FROM trials",
        "complete": "SELECT count(*) FROM trials WHERE state = 'COMPLETE'",
        "measurements": "SELECT count(*) FROM measurements",
        "finished claims": "SELECT count(*) FROM leases WHERE outcome = 'finished'",
        "open claims": "SELECT count(*) FROM leases WHERE ended_at IS NULL",
        "lost claims": "SELECT count(*) FROM leases WHERE outcome = 'lost'",
    }
    with store._glancing() as connection:
        found = {name: connection.execute(text(query)).scalar_one() for name, query in queries.items()}
    print(", ".join(f"{name} {n}" for name, n in found.items()))
    wanted = arguments.trials
    assert [found[name] for name in ("trials", "complete", "measurements", "finished claims")] == [wanted] * 4
    assert found["open claims"] == 0
    assert found["lost claims"] >= (arguments.lost // arguments.processes) * arguments.processes
    assert store.driver(study) is None


def database_size(store: Any) -> int:
    """Bytes of a PostgreSQL database, what updates left behind included."""
    from sqlalchemy import text

    with store._glancing() as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def tell(result: dict[str, Any], n: int) -> None:
    """Print what it comes to."""
    spent = result["processor_ms"]
    whole = sum(spent.values())
    parts = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
    bound = min(1e3 / spent["driver"], 1e3 * (os.cpu_count() or 1) / whole)
    print(f"{result['trials_per_s']:.0f} trials/s (wanted: {_LIMIT:.0f})")
    print(f"processor ms per trial: {parts}, {whole:.2f} in all")
    if result["database_bytes"] is not None:
        print(f"{result['database_bytes'] / n / 1024:.1f} KiB of database per trial")
    print(f"{bound:.0f} trials/s is what {os.cpu_count()} cores without other work could do with that")


if __name__ == "__main__":
    main()
