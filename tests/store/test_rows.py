"""Reading is fast enough to be done before every suggestion; writing takes milliseconds."""

from __future__ import annotations

import gc
import json
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.store import SqlStore
from autopeft.store._codec import decode_configuration
from autopeft.study import TrialDraft
from tests.store.builders import make_draft, make_measurement, make_point, make_spec


def large_draft(number: int) -> TrialDraft:
    rng = random.Random(number)
    modules = [
        (Site(layer=layer, part=part), ModuleSpec.make("lora", rng.randint(1, 64), dropout=0.1))
        for layer in range(12)
        for part in ("q", "k", "v", "o", "up", "down")
    ]
    configuration = Configuration.make(modules, learning_rate=1e-3 * (1 + number))
    return replace(make_draft(), configuration=configuration, params={f"p{i}": rng.random() for i in range(25)})


def raw_reading_s(path: Path) -> float:
    """Processor time of reading every row of a database, and every JSON text in it, and nothing else."""
    start = time.process_time()
    with closing(sqlite3.connect(path)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):
                for value in row:
                    if isinstance(value, str) and value[:1] in "{[":
                        json.loads(value)
    return time.process_time() - start


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What else the process holds must not count: how long the garbage collector takes depends on all of it."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
def test_a_thousand_large_trials_load_in_a_few_times_what_their_texts_take(tmp_path: Path) -> None:
    """Oracle: the bare driver and JSON decoder, beside it in the same run."""
    predictions = tuple(float(i % 10) for i in range(1000))
    writes = []
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        for number in range(1000):
            draft = large_draft(number)
            measurement = replace(make_measurement(), predictions=predictions)
            start = time.perf_counter()
            store.add_trial("s", draft)
            store.claim_trial("s", "w", lease_s=60)
            store.add_point("s", number, "w", make_point(1))
            store.complete_trial("s", number, "w", [measurement])
            writes.append(time.perf_counter() - start)
        loads, raw = [], []
        for _ in range(15):
            decode_configuration.cache_clear()
            start = time.process_time()
            assert len(store.load_study("s").trials) == 1000
            loads.append(time.process_time() - start)
            raw.append(raw_reading_s(tmp_path / "a.db"))
    # Half a second on a machine on which the bare reading takes 71 ms.
    assert min(loads) < 7 * min(raw)
    assert sorted(writes)[500] < 0.1  # four transactions
