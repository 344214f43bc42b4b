"""Faults by the hundred: what is lost, what is doubled, and how much time it costs.

    python benchmarks/faults.py                      # about an hour on two quiet cores
    python benchmarks/faults.py --kills 100 --only workers search
    python benchmarks/faults.py --output results.json

Real processes on a PostgreSQL of their own: searches, workers, nodes of a Ray cluster. The faults are those of
`tests/faults`, which continuous integration causes a few times each; the table in docs/faults.md is what this prints.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.faults.ray_nodes import kill_ray_nodes
from tests.faults.scenarios import SCENARIOS, SERVER_SCENARIOS
from tests.faults.scene import Scene, Verdict
from tests.store.conftest import Cluster, execute, started_cluster

#: Of 100 kills, how many are of what, and how often the other faults are caused then.
_SHARES = {
    "workers": 0.50,
    "search": 0.25,
    "ray": 0.10,
    "database": 0.15,
    "pause": 0.10,
    "network": 0.10,
    "clocks": 0.10,
    "race": 0.05,
    "trials": 0.03,
    "artifacts": 0.03,
}
_KILLS = ("workers", "search", "ray", "database")


def main() -> None:
    """Parse arguments, cause faults, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="random kills, divided among workers, searches, ...")
    parser.add_argument("--only", nargs="+", choices=list(_SHARES), help="some of the faults")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments; the clock's if left out")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    seed = time.time_ns() % 2**32 if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it began", flush=True)
    verdicts: dict[str, Verdict] = {}
    print(header(), flush=True)
    with tempfile.TemporaryDirectory(prefix="autopeft-faults-") as folder, started_cluster() as cluster:
        for name in arguments.only or _SHARES:
            n = max(1, round(arguments.kills * _SHARES[name]))
            verdicts[name] = cause(name, n, random.Random(f"{seed}-{name}"), Path(folder), cluster)
            print(line(verdicts[name]), flush=True)
    n_kills = sum(verdicts[name].n_faults for name in _KILLS if name in verdicts)
    n_bad = sum(item.lost + item.doubled + item.stuck + item.missing for item in verdicts.values())
    print(f"\n{n_kills} random kills; {n_bad} trials lost, doubled, stuck or missing.")
    if arguments.output is not None:
        arguments.output.write_text(
            json.dumps({"seed": seed, "verdicts": [asdict(item) for item in verdicts.values()]}, indent=1) + "\n",
            encoding="utf-8",
        )
    sys.exit(1 if n_bad else 0)


def cause(name: str, n: int, rng: random.Random, folder: Path, cluster: Cluster) -> Verdict:
    """Cause one kind of fault n times in a database of its own."""
    execute(cluster.url(), f"CREATE DATABASE faults_{name}")
    scene = Scene(folder / name, cluster.url(f"faults_{name}"))
    alone: dict[str, Callable[[Scene, random.Random, int], Verdict]] = {**SCENARIOS, "ray": kill_ray_nodes}
    try:
        if name in SERVER_SCENARIOS:
            return SERVER_SCENARIOS[name](scene, rng, n, cluster)
        return alone[name](scene, rng, n)
    finally:
        scene.close()


_COLUMNS = ("fault", "times", "trials", "lost", "doubled", "stuck", "missing", "given up", "claims lost", "time lost")


def header() -> str:
    """The table's first two lines, in Markdown."""
    return f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"


def line(verdict: Verdict) -> str:
    """A verdict as a line of the table."""
    claims = verdict.lost_claims_s
    lost = f"{statistics.median(claims):.1f} s each, {max(claims):.1f} s at most" if claims else "none"
    cells = (
        verdict.fault, verdict.n_faults, verdict.n_trials, verdict.lost, verdict.doubled, verdict.stuck,
        verdict.missing, verdict.given_up, len(claims), lost,
    )  # fmt: skip
    return f"| {' | '.join(str(cell) for cell in cells)} |"


if __name__ == "__main__":
    main()
