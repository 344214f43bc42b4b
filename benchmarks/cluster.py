"""What workers bring: trials per hour of two against one, what a trial costs beside its training, and the same numbers.

    python benchmarks/cluster.py                                        # tiny backbone, bare workers, then Ray
    python benchmarks/cluster.py --task stdlib/topics --backbone minilm --trials 24
    python benchmarks/cluster.py --task glue/rte --data-dir glue --backbone minilm --executor ray --trials 8

A search is run by the local executor, by one worker and by two, each with one thread. Throughput is counted from the
moment when every worker has finished a trial, so that loading is left out. The cost beside training is what passes from
claim to claim on one worker, less the trial's own ``wall_time_s``. Results are compared per configuration.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from autopeft.store import open_store
from autopeft.study import Trial, TrialState

_TINY = (
    "--text-column",
    "text",
    "--label-column",
    "label",
    "--budget",
    "5%",
    "--epochs",
    "6",
    "--train-examples",
    "96",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One search.

    Args:
        executor: Where its trials ran.
        n_workers: Workers.
        n_trials: Trials that finished.
        per_hour: Trials per hour, once all workers work.
        beside_ms: Milliseconds per trial beside its training, median over trials; None if there were too few.
        search_s: Seconds from start to end, loading included.
    """

    executor: str
    n_workers: int
    n_trials: int
    per_hour: float
    beside_ms: float | None
    search_s: float

    def text(self) -> str:
        beside = "" if self.beside_ms is None else f"{self.beside_ms:8.0f} ms beside training"
        return (
            f"{self.executor:<9}{self.n_workers} worker(s) {self.n_trials:4d} trials {self.per_hour:9.0f} per hour "
            f"{beside}, {self.search_s:6.1f} s in all"
        )


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", help="task of the searches; a tiny one is made if it is left out")
    parser.add_argument("--backbone", default="minilm", help="backbone, where a task is given")
    parser.add_argument("--data-dir", help="folder of GLUE's files")
    parser.add_argument("--trials", type=int, default=16, help="search trials")
    parser.add_argument("--executor", choices=["workers", "ray"], action="append", help="default: both")
    parser.add_argument("--flags", default="", help="further flags of the search, in one word")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it began", flush=True)
    with tempfile.TemporaryDirectory(prefix="autopeft-bench-") as name:
        folder = Path(name)
        words = _search_words(arguments, folder)
        local, reference = run(folder, "local", 1, words)
        print(local.text(), flush=True)
        rows = [local]
        for executor in arguments.executor or ["workers", "ray"]:
            pair = []
            for n_workers in (1, 2):
                row, trials = run(folder, executor, n_workers, words)
                pair.append(row)
                print(f"{row.text()}; {compare(reference, trials)}", flush=True)
            print(
                f"{executor}: two workers do {pair[1].per_hour / pair[0].per_hour:.2f} times as much as one", flush=True
            )
            rows += pair
    if arguments.output is not None:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def _search_words(arguments: argparse.Namespace, folder: Path) -> list[str]:
    if arguments.task is None:
        from tests.end_to_end.conftest import write_reviews
        from tests.tiny import tiny_folder

        tiny_folder(folder / "backbone", "bert", n_layers=2)
        write_reviews(folder / "reviews.csv")
        task = ["--task", str(folder / "reviews.csv"), "--backbone", str(folder / "backbone"), *_TINY]
    else:
        task = ["--task", arguments.task, "--backbone", arguments.backbone, "--budget", "1%"]
        if arguments.data_dir:
            task += ["--data-dir", str(Path(arguments.data_dir).resolve())]
    common = ["--sampler", "random", "--precision", "float32", "--no-baselines", "--confirm-top", "0"]
    return ["search", "--quiet", *task, *common, "--trials", str(arguments.trials), *arguments.flags.split()]


def run(folder: Path, executor: str, n_workers: int, words: Sequence[str]) -> tuple[Row, tuple[Trial, ...]]:
    """Run one search in a database of its own."""
    url = f"sqlite:///{folder / f'{executor}-{n_workers}.db'}"
    environment = {
        **os.environ,
        "AUTOPEFT_HOME": str(folder / "home"),
        "AUTOPEFT_DB": url,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    flags = ["--executor", executor] + (["--workers", str(n_workers)] if executor == "ray" else [])
    start = time.monotonic()
    with _workers(n_workers if executor == "workers" else 0, environment):
        subprocess.run(_cli(*words, *flags), env=environment, check=True, stdout=subprocess.DEVNULL)
    search_s = time.monotonic() - start
    with open_store(url) as store:
        trials = store.load_study(store.list_studies()[0].name).trials
    done = sorted(
        (item for item in trials if item.state is TrialState.COMPLETE), key=lambda item: item.finished_at or 0
    )
    assert len(done) == len(trials), "not every trial is complete"
    row = Row(
        executor=executor,
        n_workers=n_workers,
        n_trials=len(done),
        per_hour=throughput_per_hour(done),
        beside_ms=beside_ms(done),
        search_s=search_s,
    )
    return row, tuple(done)


@contextmanager
def _workers(n: int, environment: dict[str, str]) -> Iterator[None]:
    started = [
        subprocess.Popen(_cli("worker", "--threads", "1"), env=environment, stderr=subprocess.DEVNULL) for _ in range(n)
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=60)


def _cli(*words: str) -> list[str]:
    return [sys.executable, "-m", "autopeft.cli", *words]


def throughput_per_hour(done: Sequence[Trial]) -> float:
    """Trials per hour from when every worker had finished one, by finishing time; nan if none is left then."""
    firsts = {item.worker: item.finished_at for item in reversed(done)}
    moments = [item.finished_at for item in done if item.finished_at is not None]
    begin = max(moment for moment in firsts.values() if moment is not None)
    later = [moment for moment in moments if moment > begin]
    if not later:
        return float("nan")
    return 3600 * len(later) / (max(later) - begin).total_seconds()


def beside_ms(done: Sequence[Trial]) -> float | None:
    """Median milliseconds from one claim of a worker to its next, less the training's own time."""
    found = []
    for worker in {item.worker for item in done}:
        mine = sorted(
            (item for item in done if item.worker == worker and item.started_at), key=lambda item: item.number
        )
        for before, after in itertools.pairwise(mine[1:]):
            assert before.started_at is not None
            assert after.started_at is not None
            gap_s = (after.started_at - before.started_at).total_seconds()
            found.append(gap_s - (before.value("wall_time_s") or 0.0))
    return 1e3 * statistics.median(found) if found else None


def compare(reference: Sequence[Trial], trials: Sequence[Trial]) -> str:
    """How far results of the same configurations are apart, in words."""
    known = {item.configuration.fingerprint: item for item in reference}
    pairs = [
        (known[item.configuration.fingerprint], item) for item in trials if item.configuration.fingerprint in known
    ]
    largest = 0.0
    for one, other in pairs:
        mine, theirs = one.measurement(), other.measurement()
        assert mine is not None
        assert theirs is not None
        largest = max([largest, *(abs(mine.metrics[name] - theirs.metrics[name]) for name in mine.metrics)])
    return f"{len(pairs)} configurations in common with the local search, metrics differ by at most {largest:.2g}"


if __name__ == "__main__":
    main()
