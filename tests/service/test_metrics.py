"""What Prometheus reads, read by Prometheus' own parser, against what is in the database."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from autopeft.service import ServiceState
from autopeft.store import WorkerFacts, WorkerState
from autopeft.study import TrialState
from tests.cli.conftest import _write_study
from tests.export.studies import full_study
from tests.service.conftest import SETTINGS, client_of
from tests.store.builders import FAILURE, claimed


def read(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def at(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_an_empty_database_has_zeros(client: TestClient) -> None:
    found = read(client)
    for state in TrialState:
        assert at(found, "autopeft_trials", state=state.value) == 0
    assert at(found, "autopeft_queue_length") == 0
    assert at(found, "autopeft_workers", state="idle") == 0


def test_numbers_are_those_of_the_database(client: TestClient, state: ServiceState) -> None:
    study = full_study()
    _write_study(state.store, study)
    name = study.spec.name
    client.post("/v1/searches", json={"settings": SETTINGS})
    state.store.announce_worker(
        WorkerFacts(
            id="w1",
            host="h1",
            pid=1,
            state=WorkerState.IDLE,
            resources={"gpu_memory_bytes": 80 * 2**30, "device": "cuda:0"},
        ),
        lease_s=60,
    )
    state.store.announce_worker(WorkerFacts(id="w2", host="h2", pid=2, state=WorkerState.WORKING), lease_s=1e-6)
    found = read(client)
    for trial_state in TrialState:
        n_trials = sum(item.state is trial_state for item in study.trials)
        assert at(found, "autopeft_trials", state=trial_state.value) == n_trials
    assert not any(key[0] == "autopeft_study_trials" for key in found)
    state.store.acquire_driver(name, "holder", executor="local", lease_s=60)
    assert at(read(client), "autopeft_study_trials", study=name, state="COMPLETE") > 0
    assert at(found, "autopeft_searches", state="QUEUED") == at(found, "autopeft_queue_length") == 1
    assert [at(found, "autopeft_workers", state=word) for word in ("idle", "working", "lost")] == [1, 0, 1]
    gpu = {"worker": "w1", "host": "h1", "gpu": "cuda:0", "kind": "total"}
    assert at(found, "autopeft_worker_gpu_memory_bytes", **gpu) == 80 * 2**30


def test_trials_are_timed_once_when_they_end(state: ServiceState) -> None:
    _write_study(state.store, full_study())
    client = client_of(state)
    # What had ended before is history: the service was not there.
    assert not any(key[0].startswith("autopeft_trial_seconds_count") and value for key, value in read(client).items())
    name = full_study().spec.name
    for rank in (70, 71):
        number = claimed(state.store, name, rank=rank).number
        state.store.fail_trial(name, number, "w", FAILURE)
        read(client)
    found = read(client)
    assert at(found, "autopeft_trial_seconds_count", state="FAILED") == 2
    assert at(found, "autopeft_trial_seconds_sum", state="FAILED") < 60


def test_requests_are_counted_by_route_and_not_by_what_callers_write(client: TestClient, study_name: str) -> None:
    for path in (f"/v1/studies/{study_name}/front", "/v1/studies/other/front", "/x1", "/x2", "/v1/searches"):
        client.get(path)
    client.request("EVIL", "/v1/searches")
    found = read(client)
    front = {"method": "GET", "route": "/v1/studies/{study}/front"}
    assert at(found, "autopeft_http_requests_total", **front, status="200") == 1
    assert at(found, "autopeft_http_requests_total", **front, status="404") == 1
    assert at(found, "autopeft_http_requests_total", method="GET", route="other", status="404") == 2
    assert at(found, "autopeft_http_request_seconds_count", route="/v1/searches") == 1
    methods = {dict(labels).get("method") for name, labels in found if name == "autopeft_http_requests_total"}
    assert methods <= {"GET", "OTHER"}


def test_a_hostile_name_is_a_label_and_nothing_else(client: TestClient, state: ServiceState) -> None:
    from tests.export.studies import hostile_study

    name = 'a"} 1\nautopeft_trials{state="X"} 99 <script>\\'
    _write_study(state.store, hostile_study(name))
    state.store.acquire_driver(name, "holder", executor="local", lease_s=60)
    found = read(client)
    assert at(found, "autopeft_study_trials", study=name, state="FAILED") == 1
    assert ("autopeft_trials", (("state", "X"),)) not in found
