"""A small search on a real database with real worker processes, and a witness who remembers what had finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from autopeft.exceptions import AutoPeftError
from autopeft.orchestrate import is_dead
from autopeft.store import SqlStore
from autopeft.store._models import LeaseRow, StudyRow, TrialRow
from autopeft.study import Trial, TrialKind, TrialState
from tests.end_to_end.conftest import SEARCH, write_reviews
from tests.tiny import tiny_folder

#: Trials of about half a second each; what is confirmed at the end is one run.
ARGS = (*SEARCH, "--sampler", "random", "--precision", "float32", "--no-baselines", "--seeds", "1")
LEASE_S = 4.0
STUDY = "faults"


@dataclass(kw_only=True)
class Verdict:
    """What is left after a fault, however often it was caused.

    Args:
        fault: What was done.
        n_faults: How often.
        n_trials: Search trials of the studies that ended.
        lost: Finished trials that were not there at the end, or were others.
        doubled: Trials, or results of trials, that were there twice.
        stuck: Trials that were still RUNNING when the search had ended.
        missing: Search trials that the study lacked, or had too many, when the search said that it was done.
        given_up: Trials that lost three workers.
        lost_claims_s: Per claim that was lost, seconds from the claim to when its trial was put back.
        wall_s: Seconds that all of it took.
        note: What else was seen.
    """

    fault: str
    n_faults: int = 0
    n_trials: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    missing: int = 0
    given_up: int = 0
    lost_claims_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    note: str = ""

    @property
    def is_clean(self) -> bool:
        return self.n_faults > 0 and not (self.lost or self.doubled or self.stuck or self.missing)


class Scene:
    """Where faults happen.

    Args:
        folder: Of everything, empty.
        url: Database of its own.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self._n_started = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        (folder / "logs").mkdir(parents=True)
        tiny_folder(folder / "backbone", "bert", n_layers=2)
        write_reviews(folder / "reviews.csv")

    def start(self, *words: str, url: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Run ``autopeft`` with its output in a file of its own."""
        self._n_started += 1
        log = self.folder / "logs" / f"{self._n_started:03d}-{words[0]}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "autopeft.cli", *words],
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={
                    **{key: value for key, value in os.environ.items() if not key.startswith("AUTOPEFT_")},
                    "AUTOPEFT_HOME": str(self.folder / "home"),
                    "AUTOPEFT_DB": url or self.url,
                    "HF_HUB_OFFLINE": "1",
                    "OMP_NUM_THREADS": "1",
                    **environment,
                },
            )
        process.log = log  # type: ignore[attr-defined]
        self.processes.append(process)
        return process

    def search(self, trials: int, *flags: str, study: str = STUDY, **options: Any) -> subprocess.Popen[bytes]:
        confirm = () if "--confirm-top" in flags else ("--confirm-top", "1")
        executor = () if "--executor" in flags else ("--executor", "workers")
        words = (*ARGS, "--trials", str(trials), "--study", study, *confirm, *executor, *flags)
        return self.start(*words, **options)

    def worker(self, *flags: str, **options: Any) -> subprocess.Popen[bytes]:
        return self.start("worker", "--lease", f"{LEASE_S:g}s", "--threads", "1", *flags, **options)

    def close(self) -> None:
        """End whatever still runs."""
        for process in self.processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def trials(self, study: str = STUDY) -> tuple[Trial, ...]:
        """All trials; none while the study or the database is not there."""
        try:
            with SqlStore(self.url, create=False) as store:
                return store.load_study(study).trials
        except AutoPeftError:
            return ()

    def running(self, study: str = STUDY) -> dict[int, int]:
        """Process of the worker of each RUNNING trial, by number."""
        try:
            with SqlStore(self.url, create=False) as store:
                holders = store.running_workers(study)
        except AutoPeftError:
            return {}
        return {number: int(holder.rsplit(":", 2)[1]) for number, holder in holders.items() if not is_dead(holder)}

    def n_finished(self, study: str = STUDY) -> int:
        return sum(item.state.is_finished for item in self.trials(study))

    def lost_claims_s(self, study: str = STUDY) -> list[float]:
        """Of claims that were lost, how long it took from the claim until the trial was put back."""
        with SqlStore(self.url) as store, store._engine.connect() as connection:
            statement = (
                select(LeaseRow.claimed_at, LeaseRow.ended_at)
                .join(TrialRow, TrialRow.id == LeaseRow.trial_id)
                .join(StudyRow, StudyRow.id == TrialRow.study_id)
                .where(LeaseRow.outcome == "lost", StudyRow.name == study)
            )
            rows = connection.execute(statement).all()
        return [(row.ended_at - row.claimed_at).total_seconds() for row in rows if row.ended_at is not None]


class Witness:
    """Remembers every finished trial from the moment it is seen, and what changed about it later."""

    def __init__(self, scene: Scene, study: str = STUDY) -> None:
        self._scene = scene
        self._study = study
        self.known: dict[int, object] = {}
        self.changed: set[int] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._done.set()
            self._thread.join()
            self._look()

    def judge(self, verdict: Verdict, n_trials: int) -> None:
        """Add to a verdict what this study shows now that its search has ended."""
        trials = self._scene.trials(self._study)
        searched = [item for item in trials if item.kind is TrialKind.SEARCH]
        there = {item.number: _facts(item) for item in trials if item.state.is_finished}
        gone = {number for number, facts in self.known.items() if there.get(number) != facts}
        identities = Counter(item.draft.identity for item in trials)
        results = Counter((item.number, row.split, row.rung) for item in trials for row in item.measurements)
        verdict.lost += len(gone | self.changed)
        verdict.doubled += sum(count - 1 for counts in (identities, results) for count in counts.values())
        verdict.stuck += sum(not item.state.is_finished for item in trials)
        verdict.missing += abs(len(searched) - n_trials)
        verdict.n_trials += len(searched)
        verdict.given_up += sum(item.failure is not None and item.failure.reason == "lost_worker" for item in trials)
        verdict.lost_claims_s += self._scene.lost_claims_s(self._study)

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self._look()

    def _look(self) -> None:
        for trial in self._scene.trials(self._study):
            if not trial.state.is_finished or trial.state is TrialState.PRUNED:
                continue
            facts = _facts(trial)
            if self.known.setdefault(trial.number, facts) != facts:
                self.changed.add(trial.number)


def _facts(trial: Trial) -> object:
    """What must never change about a finished trial."""
    results = [(row.split, row.seed, dict(row.metrics), dict(row.costs)) for row in trial.measurements]
    return trial.state, trial.configuration.fingerprint, trial.worker, trial.attempts, trial.finished_at, results


def wait_until(condition: Callable[[], Any], what: str, *, within_s: float = 240.0, alive: Any = None) -> Any:
    """Wait for something that must happen."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        if alive is not None and alive.poll() is not None:
            raise AssertionError(f"{what} did not happen; a process ended:\n{alive.log.read_text()[-3000:]}")
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {within_s:.0f} s")


def finish(process: subprocess.Popen[bytes], *, within_s: float = 400.0) -> str:
    """Wait for the end of a process that must end well; gives its output."""
    process.wait(timeout=within_s)
    text: str = process.log.read_text()  # type: ignore[attr-defined]
    assert process.returncode == 0, text[-3000:]
    assert "Traceback" not in text, text[-3000:]
    return text
