"""How many claims and results per second the store takes, and what a trial costs beside its training.

    python benchmarks/store.py                      # SQLite in a temporary folder
    python benchmarks/store.py --postgres           # and PostgreSQL, on a server of its own
    python benchmarks/store.py --trials 2000 --processes 4 --output results.json

Trials are real configurations of the default space, measurements as large as real ones, databases are written to disk
as in a real search (nothing is switched off). Beside seconds stand processor seconds of this program and, on
PostgreSQL, of the server: on a machine with other work they say more than the clock does.

``overhead`` is a whole search with the real loop, sampler, executor and store, and a trainer that takes no time: the
seconds per trial are what the search adds to each. It is measured in a new study, and in one of many finished trials.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from autopeft.study import CurvePoint, Fidelity, Measurement, TrialDraft, TrialKind

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

FIDELITY = Fidelity(train_examples=1000, epochs=1)
LIMIT_MS = 20.0
_CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one measurement says.

    Args:
        what: What was done.
        n: How often.
        wall_s: Seconds that it took.
        client_s: Processor seconds of the programs that asked.
        server_s: Processor seconds of the database server; None where there is none.
    """

    what: str
    n: int
    wall_s: float
    client_s: float
    server_s: float | None

    def text(self) -> str:
        server = "" if self.server_s is None else f", server {1e3 * self.server_s / self.n:.2f}"
        return (
            f"{self.what:<44}{self.n / self.wall_s:>8.0f} /s {1e3 * self.wall_s / self.n:>8.2f} ms; "
            f"processor ms: client {1e3 * self.client_s / self.n:.2f}{server}"
        )


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="trials for each measurement of the store")
    parser.add_argument("--searched", type=int, default=100, help="trials of each search")
    parser.add_argument("--finished", type=int, default=20_000, help="trials of the study that is long already")
    parser.add_argument("--processes", type=int, default=4, help="that claim and complete at once")
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL too")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--work", nargs=2, metavar=("URL", "WORKER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return
    results = {}
    with tempfile.TemporaryDirectory(prefix="autopeft-bench-") as folder:
        results["SQLite"] = measured("SQLite", lambda name: f"sqlite:///{Path(folder) / name}.db", arguments)
    if arguments.postgres:
        from benchmarks.dashboard import postgres

        with postgres() as url:
            results["PostgreSQL"] = measured("PostgreSQL", lambda name: database(url, name), arguments)
    if arguments.output is not None:
        text = json.dumps({name: [vars(row) for row in rows] for name, rows in results.items()}, indent=1)
        arguments.output.write_text(text + "\n", encoding="utf-8")


def database(url: str, name: str) -> str:
    """Make a database beside the one of a URL; gives its URL."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{url.rsplit('/', 1)[0]}/{name}"


def measured(name: str, url_of: Callable[[str], str], arguments: argparse.Namespace) -> list[Row]:
    """Measure one kind of database and print what comes out."""
    load = os.getloadavg()[0]
    print(f"{name}, {os.cpu_count()} cores, load {load:.1f} before it began")
    rows = []
    for row in (
        *single(url_of("single"), arguments.trials),
        *several(url_of("several"), arguments.trials, arguments.processes),
        *overhead(url_of("overhead"), arguments.searched, arguments.finished),
    ):
        print(row.text(), flush=True)
        rows.append(row)
    return rows


class Meter:
    """Measures seconds and processor seconds of this process, its children and the database's server."""

    def __init__(self, url: str) -> None:
        self._servers = servers(url) if url.startswith("postgres") else None
        self.rows: list[Row] = []

    @contextmanager
    def measure(self, what: str, n: int) -> Iterator[None]:
        server, start, client = self._server_s(), time.perf_counter(), _client_s()
        yield
        wall_s, client_s = time.perf_counter() - start, _client_s() - client
        server_s = None if server is None else (self._server_s() or 0.0) - server
        self.rows.append(Row(what=what, n=n, wall_s=wall_s, client_s=client_s, server_s=server_s))

    def _server_s(self) -> float | None:
        if self._servers is None:
            return None
        total = 0.0
        for parent in self._servers:
            # What a backend that has ended took is its parent's children's time.
            times = parent.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
            for child in parent.children():
                times = child.cpu_times()
                total += times.user + times.system
        return total


def servers(url: str) -> list[psutil.Process]:
    """The database server of a URL, if it is on this machine; its backends are its children."""
    port = str(urlsplit(url).port)
    found = []
    for item in psutil.process_iter(["name", "cmdline"]):
        words = item.info["cmdline"] or []
        if item.info["name"] == "postgres" and "-p" in words and words[words.index("-p") + 1] == port:
            found.append(item)
    return found


def _client_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def make_drafts(n: int, seed: int = 0) -> list[TrialDraft]:
    """Trials as a search of the default space draws them."""
    from autopeft.samplers import make_sampler
    from tests.orchestrate.toys import prepared_search

    prepared = prepared_search(seed=seed)
    space = prepared.space
    sampler = make_sampler(
        "random", space=space, objectives=prepared.spec.objectives, seed=seed, fidelity=FIDELITY, constraints=()
    )
    drafts = []
    for suggestion in sampler.ask([], n):
        configuration = space.compile(suggestion.params)
        drafts.append(
            TrialDraft(
                kind=TrialKind.SEARCH,
                configuration=configuration,
                trainable_parameters=space.parameter_count(configuration),
                fidelity=FIDELITY,
                seed=seed,
                params=suggestion.params,
            )
        )
    return drafts


def make_measurement(rng: np.random.Generator, fidelity: Fidelity = FIDELITY, seed: int = 0) -> Measurement:
    """As large as that of a real search trial: metrics, costs, versions and hashes, and a curve."""
    accuracy = float(rng.random())
    points = tuple(
        CurvePoint(step=step, epoch=step / 60, metrics={"accuracy": accuracy, "train_loss": 0.3}, wall_time_s=step / 9)
        for step in (20, 40, 60)
    )
    hashes = {name: name[0] * 64 for name in ("task", "backbone", "settings")}
    versions = dict.fromkeys(("python", "torch", "transformers", "numpy", "autopeft"), "1.2.3")
    return Measurement(
        split="search",
        fidelity=fidelity,
        seed=seed,
        metrics={"accuracy": accuracy, "f1": accuracy, "loss": 0.3},
        costs={"wall_time_s": 1.5, "peak_memory_bytes": 1e9, "flops": 1e12, "adapter_bytes": 1e6},
        environment={"versions": versions, "hashes": hashes, "device": "cpu", "precision": "float32", "threads": 2},
        curve=points,
    )


def make_study(url: str, drafts: list[TrialDraft]) -> None:
    """A study of which all these trials wait for workers."""
    from autopeft.store import open_store
    from tests.store.builders import make_spec

    with open_store(url) as store:
        store.ensure_study(make_spec("s"))
        store.acquire_driver("s", "driver", executor="workers", lease_s=3600)
        for start in range(0, len(drafts), _CHUNK):
            store.add_trials("s", drafts[start : start + _CHUNK])


def single(url: str, n: int) -> list[Row]:
    """One process and no other: what each operation costs."""
    from autopeft.store import open_store

    drafts, meter, rng = make_drafts(n), Meter(url), np.random.default_rng(0)
    measurements = [make_measurement(rng) for _ in range(100)]
    make_study(url, [])
    with open_store(url) as store:
        with meter.measure(f"add, {_CHUNK} together", n):
            for start in range(0, n, _CHUNK):
                store.add_trials("s", drafts[start : start + _CHUNK])
        with meter.measure("claim_next", n):
            for _ in range(n):
                assert store.claim_next("w", lease_s=600)
        with meter.measure("heartbeat", n):
            for number in range(n):
                store.heartbeat("s", number, "w", 600)
        with meter.measure("add_point", n):
            for number in range(n):
                store.add_point("s", number, "w", measurements[0].curve[0])
        with meter.measure("complete_trial", n):
            for number in range(n):
                store.complete_trial("s", number, "w", [measurements[number % 100]])
        with meter.measure("claim_next, nothing waits", n):
            for _ in range(n):
                assert not store.claim_next("w", lease_s=600)
        study, mark = store.load_study("s"), store.load_changes("s", None).mark
        assert all(trial.state.is_finished for trial in study.trials)
        with meter.measure("load_changes, nothing has changed", n // 10):
            for _ in range(n // 10):
                store.load_changes("s", mark)
    return meter.rows


def several(url: str, n: int, n_processes: int) -> list[Row]:
    """Several processes claim and complete at once, as fast as they can."""
    meter = Meter(url)
    make_study(url, make_drafts(n))
    go = "go\n"
    words = [sys.executable, str(Path(__file__).resolve()), "--work", url]
    processes = [
        subprocess.Popen([*words, f"w{i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for i in range(n_processes)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with meter.measure(f"claim_next + complete_trial, {n_processes} processes", n):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(go)
            process.stdin.flush()
        told = [process.communicate()[0].split() for process in processes]
    # A child's processor time is known in the end alone, with what it took to start it.
    row = replace(meter.rows[0], client_s=sum(float(words[1]) for words in told))
    assert sum(int(words[0]) for words in told) == n
    return [row]


def work(url: str, worker: str) -> None:
    """Claim and complete until nothing waits; prints how many, and the processor seconds that it took."""
    from autopeft.store import open_store

    rng = np.random.default_rng(0)
    measurements = [make_measurement(rng) for _ in range(100)]
    with open_store(url) as store:
        store.drivers()
        print("ready", flush=True)
        sys.stdin.readline()
        start, n = time.process_time(), 0
        while found := store.claim_next(worker, lease_s=600):
            for name, trial in found:
                store.complete_trial(name, trial.number, worker, [measurements[n % 100]])
                n += 1
        print(n, time.process_time() - start)


class NoTraining:
    """A trainer that takes no time: it gives back what was measured before."""

    def __init__(self) -> None:
        from types import SimpleNamespace

        from tests.configuration.examples import bert_shapes

        rng = np.random.default_rng(0)
        self._measurements = [make_measurement(rng) for _ in range(100)]
        self._n = 0
        self.backbone = SimpleNamespace(shapes=bert_shapes())

    def run(self, jobs: Any, *, on_point: Any = None, on_resume: Any = None, keep_state: bool = False) -> list[Any]:
        from autopeft.training import Outcome

        outcomes = []
        for index, job in enumerate(jobs):
            self._n += 1
            measured = self._measurements[self._n % 100]
            for point in measured.curve:
                on_point(index, point)
            outcomes.append(Outcome(measurements=(replace(measured, fidelity=job.fidelity, seed=job.seed),)))
        return outcomes


def overhead(url: str, n: int, n_finished: int) -> list[Row]:
    """What a trial costs beside its training, with the local executor; three points of a learning curve are stored."""
    from autopeft.orchestrate import LocalExecutor, SearchLoop, SilentProgress
    from autopeft.store import open_store
    from tests.orchestrate.toys import prepared_search

    meter = Meter(url)
    with open_store(url) as store:
        for n_before in (0, n_finished):
            prepared = prepared_search(trials=n_before + n, confirm_top=0)
            prepared = replace(prepared, spec=replace(prepared.spec, name=f"after-{n_before}"))
            store.ensure_study(prepared.spec)
            finish_many(store, prepared, n_before)
            executor = LocalExecutor(store, NoTraining(), SilentProgress())  # type: ignore[arg-type]
            loop = SearchLoop(prepared, store, executor, SilentProgress())
            # What it takes to begin is no cost of a trial: the study is read once.
            begin(loop, n_before + 3)
            with meter.measure(f"search, local, after {n_before} trials", n - 3):
                loop._search()
    return meter.rows


def begin(loop: Any, n: int) -> None:
    """Search for the first few trials."""
    prepared = loop._prepared
    loop._prepared = replace(prepared, settings=replace(prepared.settings, trials=n))
    loop._search()
    loop._prepared = prepared


def finish_many(store: Any, prepared: Any, n: int) -> None:
    """Have a study already many finished trials, written in bulk."""
    from sqlalchemy import insert

    from autopeft.store._models import LeaseRow, MeasurementRow, TrialRow
    from autopeft.store._rows import measurement_values

    rng, name = np.random.default_rng(1), prepared.spec.name
    drafts = [replace(item, fidelity=prepared.spec.fidelity) for item in make_drafts(n, seed=1)]
    for start in range(0, n, _CHUNK):
        added = store.add_trials(name, drafts[start : start + _CHUNK])
        claimed = []
        while len(claimed) < len(added):
            found = store.claim_next("w", lease_s=600, studies=[name], limit=_CHUNK)
            claimed += [trial for _, trial in found]
        measured = make_measurement(rng, prepared.spec.fidelity)
        with store._writing() as connection:
            from sqlalchemy import select, update

            numbers = [trial.number for trial in claimed]
            study_id = store._study_id(connection, name)
            where = (TrialRow.study_id == study_id, TrialRow.number.in_(numbers))
            ids = connection.execute(select(TrialRow.id).where(*where)).scalars().all()
            values = {**measurement_values(measured)}
            connection.execute(insert(MeasurementRow), [{"trial_id": item, **values} for item in ids])
            now = store._now(connection)
            connection.execute(
                update(LeaseRow).where(LeaseRow.trial_id.in_(ids)).values(ended_at=now, outcome="finished")
            )
            connection.execute(update(TrialRow).where(*where).values(state="COMPLETE", finished_at=now))


if __name__ == "__main__":
    main()
