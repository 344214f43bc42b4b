"""What a store in a database promises beyond the common contract: several processes, and processes that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from autopeft.exceptions import NotFoundError, StoreError
from autopeft.store import SqlStore, _schema, upgrade
from autopeft.store._engine import make_engine, parse_url
from autopeft.store._schema import make_folder
from autopeft.study import TrialState
from tests.store.builders import FakeClock, claimed, make_draft, make_measurement, make_point, make_spec
from tests.store.contract import StoreContract

ROOT = Path(__file__).parents[2]
N_PROCESSES = 3


def start(role: str, url: str, go: Path, worker: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.processes", role, url, str(go), worker],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_at_once(role: str, url: str, go: Path, *, n: int = N_PROCESSES, timeout_s: float = 60) -> list[Any]:
    """Run a role in several processes at once; what each printed."""
    processes = [start(role, url, go, worker) for worker in "abcdefghijklmnop"[:n]]
    deadline = time.monotonic() + timeout_s
    while len(list(go.parent.glob(f"{go.name}.*"))) < n and time.monotonic() < deadline:
        time.sleep(0.01)
    go.touch()
    outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * n
    return [json.loads(output) for output in outputs]


class SqlContract(StoreContract):
    """Subclasses give the fixture ``url``: an empty database of its own for every test."""

    @pytest.fixture
    def store(self, url: str, clock: FakeClock) -> Iterator[SqlStore]:
        with SqlStore(url, clock=clock) as store:
            yield store

    def test_a_second_store_sees_everything(self, store: SqlStore, url: str, study: str) -> None:
        claimed(store, study)
        store.add_point(study, 0, "w", make_point(1))
        store.complete_trial(study, 0, "w", [make_measurement()])
        with SqlStore(url) as other:
            assert other.load_study(study) == store.load_study(study)
            assert other.list_studies() == store.list_studies()

    def test_a_closed_store_opens_again(self, store: SqlStore, study: str) -> None:
        store.close()
        assert store.load_study(study).trials == ()

    def test_an_empty_database_stays_empty_where_none_is_to_be_created(self, url: str) -> None:
        engine = make_engine(parse_url(url), busy_timeout_s=1)
        make_folder(parse_url(url))
        engine.connect().close()
        for _ in range(2):
            with pytest.raises(NotFoundError, match=r"there is no study in .* yet; start one with `autopeft search"):
                SqlStore(url, create=False)
            assert inspect(engine).get_table_names() == []
        engine.dispose()
        with SqlStore(url), SqlStore(url, create=False) as store:
            assert store.list_studies() == []

    def test_times_are_real_and_in_utc(self, url: str) -> None:
        with SqlStore(url) as store:
            before = datetime.now(UTC)
            store.create_study(make_spec())
            trial = store.add_trial("s", make_draft())
            assert trial.created_at is not None
            assert trial.created_at.tzinfo is UTC
            assert abs((trial.created_at - before).total_seconds()) < 60

    def test_leases_expire_by_the_real_clock(self, url: str) -> None:
        with SqlStore(url) as store:
            store.create_study(make_spec())
            store.add_trial("s", make_draft())
            store.claim_trial("s", "w", lease_s=0.2)
            assert store.release_expired("s") == []
            time.sleep(0.25)
            assert store.release_expired("s") == [0]

    def test_creating_and_upgrading_again_changes_nothing(self, store: SqlStore, url: str, study: str) -> None:
        before = store.load_study(study)
        assert upgrade(url) == (_schema.HEAD, _schema.HEAD)
        assert store.load_study(study) == before

    def test_processes_adding_and_claiming_at_once(self, store: SqlStore, url: str, study: str, tmp_path: Path) -> None:
        outputs = run_at_once("append_and_claim", url, tmp_path / "go")
        n_trials = 10 + 10 * N_PROCESSES
        for part in ("added", "claimed"):
            assert sorted(number for output in outputs for number in output[part]) == list(range(n_trials))
        trials = store.load_study(study).trials
        assert [trial.number for trial in trials] == list(range(n_trials))
        assert len({trial.draft.identity for trial in trials}) == n_trials
        assert {trial.attempts for trial in trials} == {1}
        claimed_by = {n: worker for worker, output in zip("abcdefgh", outputs, strict=False) for n in output["claimed"]}
        assert {trial.number: trial.worker for trial in trials} == claimed_by == store.running_workers(study)

    @pytest.mark.slow
    def test_sixteen_processes_claim_two_thousand_trials_each_once(
        self, store: SqlStore, url: str, study: str, tmp_path: Path
    ) -> None:
        store.add_trials(study, [make_draft(rank) for rank in range(1, 2001)])
        store.acquire_driver(study, "d", executor="workers", lease_s=600)
        outputs = run_at_once("claim_all", url, tmp_path / "go", n=16, timeout_s=300)
        assert sorted(number for numbers in outputs for number in numbers) == list(range(2000))
        holders = {
            number: worker for worker, numbers in zip("abcdefghijklmnop", outputs, strict=True) for number in numbers
        }
        assert sum(bool(numbers) for numbers in outputs) >= 8  # they did get into each other's way
        assert store.running_workers(study) == holders
        trials = store.load_study(study).trials
        assert {(trial.state, trial.attempts) for trial in trials} == {(TrialState.RUNNING, 1)}
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM leases").scalar() == 2000

    def test_processes_end_trials_and_take_the_next_each_once(
        self, store: SqlStore, url: str, study: str, tmp_path: Path
    ) -> None:
        n = 150
        store.add_trials(study, [make_draft(rank) for rank in range(1, n + 1)])
        store.acquire_driver(study, "d", executor="workers", lease_s=600)
        outputs = run_at_once("relay", url, tmp_path / "go")
        assert sorted(number for numbers in outputs for number in numbers) == list(range(n))
        trials = store.load_study(study).trials
        found = {(trial.state, trial.attempts, len(trial.measurements)) for trial in trials}
        assert found == {(TrialState.COMPLETE, 1, 1)}
        assert store.running_workers(study) == {}
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM leases").scalar() == n

    def test_processes_creating_the_same_database_at_once(self, url: str, tmp_path: Path) -> None:
        assert run_at_once("create", url, tmp_path / "go") == [0] * N_PROCESSES
        with SqlStore(url) as store:
            assert len(store.list_studies()) == 1
            assert store.load_study("s").attributes == {worker: worker for worker in "abcdefgh"[:N_PROCESSES]}

    def test_release_and_heartbeat_race_never_leaves_both(self, store: SqlStore, study: str, clock: FakeClock) -> None:
        # Either the heartbeat came first and the trial runs on, or the release did and the heartbeat is refused.
        for rank in range(1, 9):
            store.add_trial(study, make_draft(rank))
            store.claim_trial(study, "w", lease_s=1)
            clock.advance(2)
            results: dict[str, object] = {}

            def beat(number: int = rank - 1, results: dict[str, object] = results) -> None:
                try:
                    store.heartbeat(study, number, "w", 1000)
                    results["beat"] = True
                except Exception as error:
                    results["beat"] = type(error).__name__

            thread = threading.Thread(target=beat)
            thread.start()
            released = store.release_expired(study)
            thread.join()
            state = store.load_trial(study, rank - 1).state
            assert (results["beat"], released, state) in (
                (True, [], TrialState.RUNNING),
                ("TrialConflictError", [rank - 1], TrialState.WAITING),
            )
            if state is TrialState.WAITING:
                store.claim_trial(study, "w", lease_s=1000)

    def test_a_killed_writer_leaves_all_it_finished_and_nothing_half_done(
        self, store: SqlStore, url: str, study: str, tmp_path: Path
    ) -> None:
        rng = random.Random(0)
        finished: set[int] = set()
        go = tmp_path / "go"
        go.touch()
        for round_ in range(3):
            process = start("write", url, go, f"w{round_}")
            assert process.stdout is not None
            finished.add(int(process.stdout.readline()))
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(process.pid, signal.SIGKILL)
            finished.update(int(line) for line in process.stdout.read().split())
            process.wait(timeout=30)
            process.stdout.close()
            self.check_file(url)
            trials = store.load_study(study).trials
            assert [trial.number for trial in trials] == list(range(len(trials)))
            for trial in trials:
                if trial.number in finished:
                    assert trial.state is TrialState.COMPLETE
                if trial.state is TrialState.COMPLETE:
                    assert trial.measurements == (make_measurement(),)
                    assert [point.step for point in trial.curve] == [0, 1, 2]
                else:
                    assert trial.measurements == ()
            unfinished = [trial.number for trial in trials if trial.state is not TrialState.COMPLETE]
            assert len(unfinished) <= 1
            store.release_expired(study, dead_workers=[f"w{round_}"])
            for _ in unfinished:
                again = store.claim_trial(study, "rescue", lease_s=60)
                assert again is not None
                for step in range(3):
                    store.add_point(study, again.number, "rescue", make_point(step))
                store.complete_trial(study, again.number, "rescue", [make_measurement()])
        assert len(finished) >= 3
        assert store.running_workers(study) == {}
        assert {trial.state for trial in store.load_study(study).trials} == {TrialState.COMPLETE}

    def check_file(self, url: str) -> None:
        """Ask the database itself whether it is sound, where it can say so."""

    # JAX, which other tests of the same process may have loaded, warns of every fork; this child never calls it.
    @pytest.mark.filterwarnings("ignore:os.fork\\(\\) was called:RuntimeWarning")
    def test_a_forked_child_opens_its_own_connection(self, store: SqlStore, study: str) -> None:
        store.add_trial(study, make_draft(1))
        child = os.fork()
        if child == 0:  # pragma: no cover - runs in the child
            try:
                store.add_trial(study, make_draft(2))
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.add_trial(study, make_draft(3)).number == 2

    def test_newer_schema_is_refused_with_a_way_out(self, store: SqlStore, url: str) -> None:
        with store._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE autopeft_version SET version_num = '9999'")
        for opening in (SqlStore, upgrade):
            with pytest.raises(StoreError, match=r"schema 9999, which is newer .* pip install --upgrade autopeft"):
                opening(url)
