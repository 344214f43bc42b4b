"""Faults, really caused, each as often as it is asked for; what is left is a `Verdict`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from autopeft.study import TrialState
from tests.faults.proxy import Proxy
from tests.faults.scene import ARGS, LEASE_S, STUDY, Scene, Verdict, Witness, finish, wait_until
from tests.store.conftest import Cluster

#: Search trials per fault, so that faults meet a search in its middle.
_TRIALS_PER_FAULT = 2
_ROUND = 60


@contextmanager
def judged(scene: Scene, verdict: Verdict, n_trials: int, study: str = STUDY) -> Iterator[None]:
    """Within the block a search runs to its end; behind it, it is looked at."""
    witness, start = Witness(scene, study), time.monotonic()
    with witness.watching():
        yield
    witness.judge(verdict, n_trials)
    verdict.wall_s += time.monotonic() - start


def rounds(verdict: Verdict, n: int) -> Iterator[tuple[str, int, int]]:
    """Studies of a size, until n faults have been caused: name, trials, and faults that are left."""
    number = 0
    while verdict.n_faults < n:
        number += 1
        left = n - verdict.n_faults
        yield f"{STUDY}-{number}", max(8, min(_TRIALS_PER_FAULT * left, _ROUND)), left
        assert number < 40, "faults could not be caused"


def kill_workers(scene: Scene, rng: random.Random, n: int, *, n_workers: int = 2) -> Verdict:
    """SIGKILL of workers at random moments, most of them in the middle of a trial; others take their place."""
    verdict = Verdict(fault="worker killed")
    team = [scene.worker() for _ in range(n_workers)]
    for study, n_trials, left in rounds(verdict, n):
        with judged(scene, verdict, n_trials, study):
            search = scene.search(n_trials, study=study)
            wait_until(lambda study=study: scene.running(study), "the first trial", alive=search)
            while left and search.poll() is None:
                if rng.random() < 0.85:
                    # Most of a worker's short life is loading: without this, few would ever hold a trial.
                    wait_until(
                        lambda study=study, search=search: _holders(scene, study, team) or search.poll() is not None,
                        "a trial in the hands of a worker",
                    )
                time.sleep(rng.uniform(0.0, 0.5))
                holders = _holders(scene, study, team)
                index = rng.choice(holders) if holders and rng.random() < 0.85 else rng.randrange(n_workers)
                if search.poll() is not None:
                    break
                team[index].kill()
                team[index].wait()
                verdict.n_faults += 1
                left -= 1
                team[index] = scene.worker()
            finish(search)
    return verdict


def _holders(scene: Scene, study: str, team: list[subprocess.Popen[bytes]]) -> list[int]:
    """Which of the workers hold a trial."""
    pids = set(scene.running(study).values())
    return [index for index, item in enumerate(team) if item.pid in pids]


def kill_driver(scene: Scene, rng: random.Random, n: int, *, n_workers: int = 1) -> Verdict:
    """SIGKILL of the search at random moments; the same command goes on."""
    verdict = Verdict(fault="search killed")
    for _ in range(n_workers):
        scene.worker()
    for study, n_trials, left in rounds(verdict, n):
        with judged(scene, verdict, n_trials, study):
            while True:
                before = scene.n_finished(study)
                search = scene.search(n_trials, study=study)
                if not left:
                    break
                wait_until(
                    lambda before=before, study=study, search=search: (
                        scene.n_finished(study) > before or search.poll() is not None
                    ),
                    "a trial",
                )
                time.sleep(rng.uniform(0.0, 0.8))
                if search.poll() is not None:
                    break
                search.kill()
                search.wait()
                verdict.n_faults += 1
                left -= 1
            finish(search)
    return verdict


def restart_database(scene: Scene, rng: random.Random, n: int, cluster: Cluster) -> Verdict:
    """PostgreSQL stopped in the middle, as by SIGKILL, and started again after a while."""
    verdict = Verdict(fault="PostgreSQL restarted")
    for _ in range(2):
        scene.worker()
    for study, n_trials, left in rounds(verdict, n):
        with judged(scene, verdict, n_trials, study):
            search = scene.search(n_trials, study=study)
            wait_until(lambda study=study: scene.running(study), "the first trial", alive=search)
            while left and search.poll() is None:
                time.sleep(rng.uniform(0.2, 1.5))
                cluster.stop()
                time.sleep(rng.uniform(0.0, 1.5 * LEASE_S))
                cluster.start()
                verdict.n_faults += 1
                left -= 1
                seen = scene.n_finished(study)
                wait_until(
                    lambda seen=seen, study=study, search=search: (
                        scene.n_finished(study) > seen or search.poll() is not None
                    ),
                    "the next trial",
                )
            finish(search)
    return verdict


def pause_worker(scene: Scene, rng: random.Random, n: int) -> Verdict:
    """SIGSTOP of a worker and its engine past its lease, until another one has finished its trial; then SIGCONT."""
    verdict = Verdict(fault="worker paused past its lease")
    paused, other = scene.worker(), None
    for study, n_trials, left in rounds(verdict, n):
        with judged(scene, verdict, n_trials, study):
            # Long enough to be met in the middle.
            search = scene.search(n_trials, "--epochs", "30", "--train-examples", "140", study=study)
            while left and search.poll() is None:
                number = wait_until(lambda study=study: _begun(scene, study, paused), "a trial", alive=search) - 1
                family = _family(paused.pid)
                _send(family, signal.SIGSTOP)
                if scene.trials(study)[number].state.is_finished:
                    # It was a moment too late: the result is being told, and nothing has happened.
                    _send(family, signal.SIGCONT)
                    continue
                other = other or scene.worker()
                wait_until(
                    lambda number=number, study=study: scene.trials(study)[number].state.is_finished,
                    "the trial's end by another worker",
                    alive=search,
                )
                _send(family, signal.SIGCONT)
                verdict.n_faults += 1
                left -= 1
                trial = scene.trials(study)[number]
                assert f":{paused.pid}:" not in str(trial.worker), "the late result has overwritten the other one"
                # It has let go of the trial before the next one is looked for.
                wait_until(lambda study=study: paused.pid not in scene.running(study).values(), "the worker's return")
            finish(search)
    return verdict


def _begun(scene: Scene, study: str, worker: subprocess.Popen[bytes]) -> int:
    """One more than the number of the trial that a worker is training, 0 if none; one that loads is not training."""
    text: str = worker.log.read_text()  # type: ignore[attr-defined]
    held = [number for number, pid in scene.running(study).items() if pid == worker.pid]
    return next((number + 1 for number in held if f"[{study}] trial {number} begins." in text), 0)


def cut_network(scene: Scene, rng: random.Random, n: int, cluster: Cluster) -> Verdict:
    """The network between a worker and the database breaks for longer than the lease; nothing else does."""
    verdict = Verdict(fault="network between worker and database cut")
    with Proxy(cluster.port) as proxy:
        scene.worker(url=scene.url.replace(f":{cluster.port}/", f":{proxy.port}/"))
        for study, n_trials, left in rounds(verdict, n):
            with judged(scene, verdict, n_trials, study):
                search = scene.search(n_trials, study=study)
                while left and search.poll() is None:
                    seen = scene.n_finished(study)
                    wait_until(lambda study=study: scene.running(study), "a trial", alive=search)
                    time.sleep(rng.uniform(0.0, 0.3))
                    proxy.cut()
                    time.sleep(rng.uniform(0.5, 2.5) * LEASE_S)
                    proxy.mend()
                    verdict.n_faults += 1
                    left -= 1
                    wait_until(
                        lambda seen=seen, study=study, search=search: (
                            scene.n_finished(study) > seen or search.poll() is not None
                        ),
                        "the next trial",
                    )
                finish(search)
    return verdict


def skew_clocks(scene: Scene, rng: random.Random, n: int) -> Verdict:
    """Workers whose clocks are hours off, before and behind, one of which is killed."""
    verdict = Verdict(fault="clocks hours apart")
    folder = scene.folder / "skew"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SKEW)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])

    def skewed(hours: float) -> subprocess.Popen[bytes]:
        return scene.worker(PYTHONPATH=path, CLOCK_SKEW_S=str(3600 * hours))

    team = [skewed(-5), skewed(+7)]
    for study, n_trials, left in rounds(verdict, n):
        with judged(scene, verdict, n_trials, study):
            search = scene.search(n_trials, study=study)
            wait_until(lambda study=study: scene.running(study), "the first trial", alive=search)
            while left and search.poll() is None:
                time.sleep(rng.uniform(0.1, 1.0))
                index = rng.randrange(2)
                team[index].kill()
                team[index].wait()
                team[index] = skewed(rng.uniform(-24, 24))
                verdict.n_faults += 1
                left -= 1
            finish(search)
    return verdict


#: Python's own clock; libfaketime would break the waiting of the interpreter itself.
_SKEW = """
import os, time
skew = float(os.environ["CLOCK_SKEW_S"])
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + skew
time.time_ns = lambda: real_ns() + int(skew * 1e9)
"""


def race_drivers(scene: Scene, rng: random.Random, n: int) -> Verdict:
    """The same search started twice at once; the one that drives is killed, the other one takes over."""
    verdict = Verdict(fault="two searches race, the one that drives is killed")
    scene.worker()
    for study, n_trials, left in rounds(verdict, n):
        with judged(scene, verdict, n_trials, study):
            drivers = [scene.search(n_trials, study=study) for _ in range(2)]
            while left:
                driver = wait_until(lambda study=study, drivers=drivers: _driver(scene, study, drivers), "a driver")
                seen = scene.n_finished(study)
                wait_until(
                    lambda seen=seen, study=study, drivers=drivers: (
                        scene.n_finished(study) > seen or any(item.poll() is not None for item in drivers)
                    ),
                    "a trial",
                )
                time.sleep(rng.uniform(0.0, 0.5))
                if driver.poll() is not None:
                    break
                driver.kill()
                driver.wait()
                verdict.n_faults += 1
                left -= 1
                drivers[drivers.index(driver)] = scene.search(n_trials, study=study)
            for item in drivers:
                finish(item)
    return verdict


def _driver(scene: Scene, study: str, drivers: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes] | None:
    from autopeft.store import SqlStore

    with SqlStore(scene.url) as store:
        lease = next((item for item in store.drivers() if item.study == study), None)
    return None if lease is None else next((item for item in drivers if f":{item.pid}:" in lease.holder), None)


def bad_trials(scene: Scene, rng: random.Random, n: int) -> Verdict:
    """Trials that segfault, hang, or eat memory, n of each; the others must come to their end."""
    verdict = Verdict(fault="trial segfaults, hangs, or eats memory")
    (scene.folder / "mine.py").write_text(_TRAPS)
    traps = scene.folder / "traps"
    traps.mkdir()
    acts = [(act, number) for number in range(n) for act in ("segfault", "hang", "eat")]
    flags = ("--record", "mine.py:trap", "--confirm-top", "0")
    n_trials = len(acts) + 3
    with judged(scene, verdict, n_trials):
        search = scene.search(n_trials, *flags, TRAP_FOLDER=str(traps))
        # The driver tries rewards on an untrained candidate first; the traps are set behind that.
        wait_until(lambda: scene.trials(), "the first trial", alive=search)
        for act, number in acts:
            (traps / f"{act}-{number}").touch()
        limits = ("--allow-code", "--trial-timeout", "8s", "--memory-limit", "1500M")
        scene.worker(*limits, TRAP_FOLDER=str(traps))
        finish(search)
    failures = [item.failure for item in scene.trials() if item.failure is not None]
    reasons = sorted(item.reason for item in failures)
    assert reasons == sorted(["crashed", "hung", "out_of_memory"] * n), reasons
    assert sum(item.state is TrialState.COMPLETE for item in scene.trials()) == 3
    verdict.n_faults = len(failures)
    verdict.note = "failed with the reason: " + ", ".join(dict.fromkeys(reasons))
    return verdict


_TRAPS = """
import ctypes, os, pathlib, time
from autopeft.rewards import reward

hoard = []

@reward(direction="minimize")
def trap(candidate):
    for path in sorted(pathlib.Path(os.environ["TRAP_FOLDER"]).iterdir()):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        ACTS[path.name.split("-")[0]]()
    return 1.0

def eat():
    while True:
        hoard.append(bytearray(b"x" * 2**25))
        time.sleep(0.02)

ACTS = {"segfault": lambda: ctypes.string_at(0), "hang": lambda: time.sleep(3600), "eat": eat}
"""


def full_artifacts(scene: Scene, rng: random.Random, n: int) -> Verdict:
    """No room where the search stores its files for the workers; with room, the same command goes on."""
    verdict = Verdict(fault="disk of the artifacts full")
    scene.worker("--artifacts", str(scene.folder / "artifacts"))
    for study, n_trials, left in rounds(verdict, n):
        artifacts = scene.folder / "artifacts"
        with judged(scene, verdict, n_trials, study):
            words = [*ARGS, "--trials", str(n_trials), "--study", study, "--confirm-top", "0", "--executor", "workers"]
            for _ in range(left):
                limited = scene.folder / "limited.py"
                limited.write_text(_LIMITED)
                done = subprocess.run(
                    [sys.executable, str(limited), "3000", *words, "--artifacts", str(artifacts)],
                    capture_output=True,
                    text=True,
                    cwd=scene.folder,
                    env={**os.environ, "AUTOPEFT_DB": scene.url, "AUTOPEFT_HOME": str(scene.folder / "home")},
                    timeout=200,
                )
                assert done.returncode == 4, done.stderr
                assert done.stderr.count("error:") == 1, done.stderr
                assert "Traceback" not in done.stderr
                verdict.note = next(line for line in done.stderr.splitlines() if line.startswith("error:"))[:120]
                verdict.n_faults += 1
            finish(scene.start(*words, "--artifacts", str(artifacts)))
    return verdict


_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from autopeft.cli import main
sys.exit(main(sys.argv[2:]))
"""


def _family(pid: int) -> list[int]:
    import psutil

    process = psutil.Process(pid)
    return [pid, *(item.pid for item in process.children(recursive=True))]


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


#: Faults that need nothing but a database.
SCENARIOS: dict[str, Callable[[Scene, random.Random, int], Verdict]] = {
    "workers": kill_workers,
    "search": kill_driver,
    "pause": pause_worker,
    "clocks": skew_clocks,
    "race": race_drivers,
    "trials": bad_trials,
    "artifacts": full_artifacts,
}
#: Faults that need PostgreSQL.
SERVER_SCENARIOS: dict[str, Callable[[Scene, random.Random, int, Cluster], Verdict]] = {
    "database": restart_database,
    "network": cut_network,
}
