"""How long does the dashboard take on 20 studies, one of them with 10,000 trials?

The studies are made up, with configurations, measurements, curves, failures and notes like those of real searches. Each
page is drawn through Streamlit's own `AppTest` in a process that has done what the server does at its start
(`dashboard.warm`): first with nothing remembered (``first``), then again as on the next rerun (``again``). That is the
time of the script: queries, figures, and the messages to the browser, but not the browser's own drawing, which
``--browser`` measures.

    python benchmarks/dashboard.py                        # SQLite in a temporary folder
    python benchmarks/dashboard.py --postgres             # and PostgreSQL, on a server of its own
    python benchmarks/dashboard.py --browser              # and in Chromium, until a page shows everything
    python benchmarks/dashboard.py --trials 2000 --output results.json
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

LIMITS_S = {"studies": 2.0}
PAGES = ("studies", "front", "configuration", "trials", "insight", "health", "export")
#: What stands last on each page about a study; health comes last, because it is where the visitor is at first.
LAST_PARTS = {
    "front": "How the front grew",
    "configuration": "What good configurations tune",
    "trials": "Failures",
    "insight": "Do early measurements tell the end",
    "export": "For a paper",
    "health": "Are the workers alive",
}
#: Seconds that a visitor looks at a page before the next click.
READING_S = 3
#: Whether every picture of the page is drawn: those of the page before are gone by then.
DRAWN = """() => {
    const places = Array.from(document.querySelectorAll('[data-testid=stPlotlyChart]'));
    const skeletons = document.querySelectorAll('[data-testid=stSkeleton], [data-stale=true]');
    return !skeletons.length && places.every(place => place.querySelector('.main-svg'));
}"""
#: Ends when what was done so far is on the screen.
PAINTED = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))"
N_LAYERS = 12
START = datetime(2026, 11, 1, tzinfo=UTC)


def main() -> None:
    """Parse arguments, make the studies, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="trials of the largest study")
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL too")
    parser.add_argument("--browser", action="store_true", help="measure in Chromium too (needs playwright)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="autopeft-bench-") as folder:
        results.append(measured("SQLite", f"sqlite:///{Path(folder) / 'studies.db'}", arguments))
    if arguments.postgres:
        with postgres() as url:
            results.append(measured("PostgreSQL", url, arguments))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measured(name: str, url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fill a database, draw every page in a fresh process, print and return the times."""
    begun = time.perf_counter()
    fill(url, n_studies=arguments.studies, n_trials=arguments.trials)
    print(f"{name}: {arguments.studies} studies made in {time.perf_counter() - begun:.0f} s", flush=True)
    code = "import sys; from benchmarks.dashboard import draw; draw(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  load average {found['load']:.1f} on {os.cpu_count()} cores")
    print(f"  {'page':15} {'first s':>8} {'again s':>8} {'cpu s':>8} {'limit s':>8}")
    for page in PAGES:
        row = found["pages"][page]
        limit = LIMITS_S.get(page, 1.0)
        print(f"  {page:15} {row['first']:8.2f} {row['again']:8.2f} {row['cpu']:8.2f} {limit:8.1f}", flush=True)
    if arguments.browser:
        found["browser"] = browse(url)
        found["browser_load"] = os.getloadavg()[0]
        print(f"  load average {found['browser_load']:.1f}")
        print(f"  {'in Chromium':22} {'wall s':>8} {'server':>8} {'browser':>8} {'limit s':>8}   (processor seconds)")
        for page, spent in found["browser"].items():
            limit = LIMITS_S.get(page, 1.0)
            numbers = f"{spent['wall']:8.2f} {spent['server']:8.2f} {spent['browser']:8.2f}"
            print(f"  {page:22} {numbers} {limit:8.1f}", flush=True)
    return {"database": name, "trials": arguments.trials, **found}


def browse(url: str) -> dict[str, dict[str, float]]:
    """Seconds from the address to the first page, and from each click until the next page shows everything.

    Everything: its last part and every picture, with nothing left to do for the browser. Pages are opened twice
    (``again``), because browser and server remember. ``wall`` is what a visitor waits here, ``server`` and ``browser``
    are the processor time of both: their sum is more than a visitor waits where nothing else runs.
    """
    from tests.dashboard.browser import browser, served, settled

    times = {}
    with tempfile.TemporaryDirectory() as folder, served(url, Path(folder) / "log") as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        before = (time.perf_counter(), work())
        page.goto(address)
        page.get_by_text("Select a row to open the study").wait_for()
        page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
        times["studies"] = since(before)
        settled(page)
        # The study is chosen by the address, which loads the application anew; then pages change as for a visitor.
        page.goto(f"{address}/health?study=study-00")
        page.get_by_text(LAST_PARTS["health"]).first.wait_for()
        for suffix in ("", ", again"):
            for name, text in LAST_PARTS.items():
                settled(page)
                page.wait_for_timeout(READING_S * 1000)
                before = (time.perf_counter(), work())
                page.get_by_role("link", name=name.capitalize(), exact=True).first.click()
                page.wait_for_url(f"**/{name}?*")
                page.get_by_text(text).first.wait_for()
                page.wait_for_function(DRAWN)
                page.evaluate(PAINTED)
                times[name + suffix] = since(before)
    return times


def work() -> dict[str, float]:
    """Seconds of processor time of the server and the browser so far."""
    import psutil

    total = {"server": 0.0, "browser": 0.0}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            spent, words = process.cpu_times(), " ".join(process.cmdline())
            kind = "server" if "serve.py" in words else "browser" if "chrom" in words else None
            if kind is not None:
                total[kind] += spent.user + spent.system
    return total


def since(before: tuple[float, dict[str, float]]) -> dict[str, float]:
    """Wall time and work since a moment."""
    wall, now = time.perf_counter() - before[0], work()
    return {"wall": wall, **{kind: now[kind] - spent for kind, spent in before[1].items()}}


def draw(url: str) -> None:
    """Draw every page twice; prints JSON. In a process of its own: nothing is remembered at its start."""
    import warnings

    from streamlit.testing.v1 import AppTest

    from dashboard.warm import warm_up

    warnings.simplefilter("ignore")
    warm_up()
    os.environ["AUTOPEFT_DB"] = url
    app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=600)
    times: dict[str, dict[str, float]] = {}
    for page in PAGES:
        if page != "studies":
            app.query_params["study"] = "study-00"
            addresses = {info["url_pathname"]: key for key, info in app._registered_pages.items()}
            app._page_hash = addresses[page]
        spent, cpu = [], []
        for _ in range(2):
            wall, processor = time.perf_counter(), time.process_time()
            app.run()
            spent.append(time.perf_counter() - wall)
            cpu.append(time.process_time() - processor)
            problems = [item.value for item in (*app.exception, *app.error)]
            if problems:
                raise SystemExit(f"{page}: {problems}")
        times[page] = {"first": spent[0], "again": spent[1], "cpu": cpu[0]}
    print(json.dumps({"pages": times, "load": os.getloadavg()[0]}))


def fill(url: str, *, n_studies: int, n_trials: int, seed: int = 0) -> None:
    """Make studies: the first with `n_trials` trials, the others with a fiftieth each.

    Rows are inserted in bulk: through the store each trial would be several transactions that wait for the disk.
    """
    from sqlalchemy import insert

    from autopeft.store import WorkerFacts, open_store
    from autopeft.store._models import CurvePointRow, LeaseRow, MeasurementRow, TrialRow

    rng = np.random.default_rng(seed)
    trial_id = lease_id = 0
    with open_store(url) as store:
        for i in range(n_studies):
            name = f"study-{i:02}"
            store.create_study(make_spec(name))
            study_id = i + 1
            rows = make_rows(rng, study_id, n_trials if i == 0 else max(n_trials // 50, 20), trial_id, lease_id)
            trial_id += len(rows["trials"])
            lease_id += len(rows["leases"])
            with store._engine.execution_options(writes=True).begin() as connection:
                models = (("trials", TrialRow), ("measurements", MeasurementRow), ("leases", LeaseRow))
                for key, model in (*models, ("points", CurvePointRow)):
                    for start in range(0, len(rows[key]), 2000):
                        connection.execute(insert(model), rows[key][start : start + 2000])
            store.set_attribute(name, "leave_one_out", make_left_out(rng, len(rows["trials"])))
        for i in range(8):
            refusals = {"study-00": "lacks the backbone"} if i == 0 else {}
            store.announce_worker(WorkerFacts(id=f"host:{i}:1", host="host", pid=i + 1, refusals=refusals), 3600)


def make_left_out(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """What a model of n trials predicts of each without it, as a search keeps it."""
    observed, error = rng.normal(0.75, 0.05, n), rng.normal(0, 0.02, n)
    columns = {"observed": observed, "mean": observed + error}
    columns |= {"low": columns["mean"] - 0.02, "high": columns["mean"] + 0.02}
    table = {name: values.round(6).tolist() for name, values in columns.items()}
    return {"n_search": n, "numbers": list(range(n)), "objectives": {"accuracy": table}}


def make_spec(name: str) -> Any:
    """A study's settings."""
    from autopeft.objectives import COSTS, Direction, Objective
    from autopeft.study import Fidelity, StudySpec

    numbers = {key: {"type": "int", "low": 1, "high": 64, "log": True} for key in ("lora_rank", "adapter_size")}
    switches: dict[str, Any] = {f"layer_{i}": {"type": "bool"} for i in range(N_LAYERS)}
    rate = {"learning_rate": {"type": "float", "low": 0.0003, "high": 0.02, "log": True}}
    return StudySpec(
        name=name,
        task={"name": "made/up", "metrics": ["accuracy", "macro_f1"]},
        backbone={"name": "base", "parameters": 110_000_000, "n_layers": N_LAYERS},
        space={"name": "made", "parameters": {**numbers, **switches, **rate}},
        budget=1_100_000,
        budget_text="1%",
        sampler="bayesian",
        objectives=(Objective(name="accuracy", direction=Direction.MAXIMIZE), COSTS["trainable_parameters"]),
        fidelity=Fidelity(train_examples=5000, epochs=2),
        training={"batch_size": 16},
        seed=0,
    )


def make_rows(rng: np.random.Generator, study_id: int, n: int, trial_id: int, lease_id: int) -> dict[str, list[Any]]:
    """Rows of a study's trials: a few baselines, failures and pruned ones among the searched."""
    from autopeft.store._additions import draft_row
    from autopeft.store._rows import failure_values, measurement_values
    from autopeft.study import CurvePoint, Failure, Fidelity, Measurement, Rung, TrialDraft, TrialKind

    rows: dict[str, list[Any]] = {"trials": [], "measurements": [], "leases": [], "points": []}
    fidelity = Fidelity(train_examples=5000, epochs=2)
    for number in range(n):
        point, configuration, cost = make_configuration(rng)
        kind = TrialKind.BASELINE if number < 10 else TrialKind.SEARCH
        draft = TrialDraft(
            kind=kind,
            configuration=configuration,
            trainable_parameters=cost,
            fidelity=fidelity,
            seed=number if kind is TrialKind.BASELINE else 0,
            params=None if kind is TrialKind.BASELINE else point,
            label=f"baseline {number}" if kind is TrialKind.BASELINE else None,
        )
        accuracy = float(0.6 + 0.03 * np.log10(cost) - 0.02 * (np.log10(point["learning_rate"]) + 2.5) ** 2)
        accuracy += float(rng.normal(0, 0.01))
        fate = rng.random() if kind is TrialKind.SEARCH else 1.0
        start = START + timedelta(seconds=30 * number)
        row_id = trial_id + number + 1
        row = {
            "id": row_id,
            "study_id": study_id,
            "number": number,
            "state": "COMPLETE",
            "attempts": 1,
            "worker": f"host:{number % 4}:1",
            "created_at": start,
            "started_at": start,
            "finished_at": start + timedelta(seconds=25),
            "notes": make_notes(rng, accuracy),
            "failure_reason": None,
            "failure_message": None,
            "failure_traceback": None,
            **draft_row(draft),
        }
        rung = Rung(step=100, n_steps=600) if fate < 0.3 else None
        if fate < 0.02:
            row |= failure_values(Failure(reason="divergence", message="the loss became nan", traceback="..." * 300))
        else:
            row["state"] = "COMPLETE" if rung is None else "PRUNED"
            curve = tuple(
                CurvePoint(
                    step=step, epoch=step / 300, metrics={"accuracy": accuracy - 10 / step}, wall_time_s=step / 30
                )
                for step in (100, 200, 300, 400, 500)
            )
            measurement = Measurement(
                split="search",
                fidelity=fidelity,
                seed=draft.seed,
                metrics={"accuracy": accuracy, "macro_f1": accuracy - 0.02},
                costs={"wall_time_s": 20.0, "peak_memory_bytes": 2e9, "examples_per_s": 300.0, "tokens_per_s": 9e3},
                environment={"python": "3.11", "device": "cpu", "hash": "0" * 64},
                curve=curve,
                predictions=None,
                rung=rung,
            )
            rows["measurements"].append({"trial_id": row_id, **measurement_values(measurement)})
        lease = lease_id + len(rows["leases"]) + 1
        end = start + timedelta(seconds=25)
        rows["leases"].append(
            {
                "id": lease,
                "trial_id": row_id,
                "worker": row["worker"],
                "claimed_at": start,
                "heartbeat_at": end,
                "expires_at": end,
                "ended_at": end,
                "outcome": "finished",
            }
        )
        for step in (100,) if rung else (100, 200, 300, 400, 500):
            metrics = json.dumps({"accuracy": accuracy - 10 / step, "train_loss": 1.0})
            rows["points"].append(
                {
                    "lease_id": lease,
                    "step": step,
                    "epoch": step / 300,
                    "wall_time_s": step / 30,
                    "metrics": metrics,
                    "n_examples": None,
                }
            )
        rows["trials"].append(row)
    return rows


def make_configuration(rng: np.random.Generator) -> tuple[dict[str, Any], Any, int]:
    """A point, a configuration of LoRA and adapters on some layers, and its parameters on a hidden size of 768."""
    from autopeft.configuration import Configuration, ModuleSpec, Site

    rank, width = (int(2 ** rng.uniform(0, 6)) for _ in range(2))
    layers = [layer for layer in range(N_LAYERS) if rng.random() < 0.5] or [0]
    rate = float(10 ** rng.uniform(-3.5, -1.7))
    pairs = [(Site(layer=i, part=part), ModuleSpec.make("lora", rank)) for i in layers for part in ("q", "k", "v", "o")]
    pairs += [(Site(layer=i, part="ffn"), ModuleSpec.make("serial_adapter", width)) for i in layers]
    point: dict[str, Any] = {"lora_rank": rank, "adapter_size": width, "learning_rate": rate}
    point |= {f"layer_{i}": i in layers for i in range(N_LAYERS)}
    cost = len(layers) * (4 * rank * 2 * 768 + 2 * width * 768)
    return point, Configuration.make(pairs, learning_rate=rate), cost


def make_notes(rng: np.random.Generator, accuracy: float) -> str:
    """Notes as the sampler and the executor write them."""
    guess = accuracy + float(rng.normal(0, 0.02))
    note = {
        "source": "model",
        "why": "improves the front",
        "predicted": {"accuracy": {"mean": guess, "low": guess - 0.02, "high": guess + 0.02}},
        "encoding": rng.random(30).round(6).tolist(),
        "leave_one_out": {"accuracy": {"n": 40, "rank_correlation": 0.5, "held_out_rank_correlation": 0.4}},
    }
    return json.dumps({"suggestion": note, "placement_parameters": [12288] * 30})


def _composed() -> list[str]:
    """The settings with which the compose file starts its server."""
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return [str(word) for word in composed["services"]["db"]["command"][1:]]


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server of one's own on the loopback interface; gives the URL of an empty database.

    It is set up as the server of the compose file is.
    """
    from tests.ports import free_port

    found = shutil.which("initdb")
    places = [Path(found).resolve()] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not places:
        raise SystemExit("PostgreSQL's binaries are not installed (Debian: apt-get install postgresql)")
    binaries, port = places[-1].parent, free_port()
    folder = Path(tempfile.mkdtemp(prefix="autopeft-bench-postgres-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def run(*words: str) -> None:
        whole = [str(binaries / words[0]), *words[1:]]
        subprocess.run(whole, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=300, **user)

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "bench", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync")
        options = shlex.join(["-c", "listen_addresses=127.0.0.1", "-p", str(port), "-k", "", *_composed()])
        run("pg_ctl", "start", "-w", "-D", data, "-l", str(folder / "log"), "-o", options)
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
        run("pg_ctl", "stop", "-w", "-m", "fast", "-D", data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
