from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from autopeft.service import ServiceState
from autopeft.store import SubmissionState
from tests.service.conftest import ADA, BOB, EYE, ROOT, SETTINGS, FakeDrivers, Open, client_of
from tests.service.test_uploads import CSV


def submit(client: TestClient, **settings: Any) -> dict[str, Any]:
    answer = client.post("/v1/searches", json={"settings": {**SETTINGS, **settings}})
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/searches/{document['study']}"
    return document


def test_submitting_listing_and_reading(client: TestClient, state: ServiceState) -> None:
    made = submit(client)
    assert (made["owner"], made["state"], made["queue_position"], made["is_own"]) == ("ada", "QUEUED", 1, True)
    assert made["settings"]["trials"] == 4
    assert client.get(f"/v1/searches/{made['study']}").json() == made
    listed = client.get("/v1/searches").json()["searches"]
    assert listed == [{key: value for key, value in made.items() if key != "schema_version"}]
    assert client.get("/v1/searches", params={"owner": "bob"}).json()["searches"] == []
    assert client.get("/v1/searches", params={"state": "RUNNING"}).json()["searches"] == []
    assert submit(client) == made
    assert submit(client, trials=9)["study"] == made["study"]
    assert state.submissions.load(made["study"]).settings["trials"] == 9


def test_flags_win_over_the_file(client: TestClient) -> None:
    body = {"settings": {**SETTINGS, "time": "5m"}, "overrides": {"trials": 7, "time_s": "1m", "seed": None}}
    found = client.post("/v1/searches", json=body).json()["settings"]
    assert (found["trials"], found["time_s"]) == (7, 60.0)
    assert "seed" not in found


def test_stopping_and_resuming_is_for_the_owner_and_the_operator(client: TestClient, state: ServiceState) -> None:
    study = submit(client)["study"]
    bob, root = client_of(state, BOB), client_of(state, ROOT)
    for word in ("stop", "resume"):
        assert bob.post(f"/v1/searches/{study}/{word}").status_code == 403
        assert client.post(f"/v1/searches/nothing/{word}").status_code == 404
    assert bob.get(f"/v1/searches/{study}").json()["is_own"] is False
    assert client.post(f"/v1/searches/{study}/stop").json()["state"] == "STOPPED"
    assert client.post(f"/v1/searches/{study}/stop").json()["state"] == "STOPPED"
    resumed = root.post(f"/v1/searches/{study}/resume").json()
    assert (resumed["state"], resumed["owner"]) == ("QUEUED", "ada")
    assert root.post(f"/v1/searches/{study}/stop").json()["state"] == "STOPPED"


def test_a_search_at_work_cannot_be_changed_or_resumed_while_it_stops(client: TestClient, state: ServiceState) -> None:
    study = submit(client)["study"]
    state.submissions.start_next("svc")
    assert submit(client)["state"] == "RUNNING"
    assert client.post("/v1/searches", json={"settings": {**SETTINGS, "trials": 5}}).status_code == 409
    assert client.post(f"/v1/searches/{study}/stop").json()["state"] == "STOPPING"
    assert client.post(f"/v1/searches/{study}/resume").status_code == 409


def test_what_was_allowed_once_is_checked_again(open_service: Open) -> None:
    client = client_of(open_service(allow_code=True))
    study = submit(client, allow_pickle=True)["study"]
    strict = client_of(open_service())
    strict.post(f"/v1/searches/{study}/stop")
    answer = strict.post(f"/v1/searches/{study}/resume")
    assert answer.status_code == 403
    assert "allow_pickle" in answer.json()["error"]["message"]


def test_refusals_reach_the_caller_with_the_way_out(client: TestClient) -> None:
    for settings, status, message in [
        ({"task": "/etc/passwd"}, 422, "unknown task"),
        ({**SETTINGS, "trust_remote_code": True}, 403, "--allow-code"),
        ({**SETTINGS, "trials": 10**9}, 403, "at most 10,000"),
        ({}, 422, "no task given"),
        ({**SETTINGS, "task": f"upload:{'0' * 64}/a.csv"}, 404, "no upload"),
    ]:
        answer = client.post("/v1/searches", json={"settings": settings})
        assert answer.status_code == status
        assert message in answer.json()["error"]["message"]


def test_a_full_queue_is_said(open_service: Open) -> None:
    client = client_of(open_service(max_queued=2))
    submit(client, seed=1)
    submit(client, seed=2)
    answer = client.post("/v1/searches", json={"settings": {**SETTINGS, "seed": 3}})
    assert answer.status_code == 409
    assert "2 searches of ada wait" in answer.json()["error"]["message"]


def test_the_log_is_read_on_from_where_one_was(client: TestClient, drivers: FakeDrivers, state: ServiceState) -> None:
    study = submit(client)["study"]
    drivers.logs[study] = f"reads {state.settings.folder}/uploads/a.csv\n"
    found = client.get(f"/v1/searches/{study}/log").json()
    assert found["text"] == "reads (service)/uploads/a.csv\n"
    assert client.get(f"/v1/searches/{study}/log", params={"offset": found["offset"]}).json()["text"] == ""
    assert client.get("/v1/searches/nothing/log").status_code == 404


def test_uploads_are_used_listed_and_deleted_by_their_owner(client: TestClient, state: ServiceState) -> None:
    answer = client.post("/v1/uploads", params={"name": "reviews.csv"}, content=CSV)
    assert answer.status_code == 201, answer.text
    reference = answer.json()["reference"]
    assert answer.json() == {"schema_version": 1, "reference": reference, "name": "reviews.csv", "bytes": len(CSV)}
    assert [item["reference"] for item in client.get("/v1/uploads").json()["uploads"]] == [reference]
    bob = client_of(state, BOB)
    assert bob.get("/v1/uploads").json()["uploads"] == []
    assert bob.post("/v1/searches", json={"settings": {"task": reference}}).status_code == 404
    assert bob.delete("/v1/uploads", params={"reference": reference}).status_code == 404
    study = submit(client, task=reference)["study"]
    assert client.delete("/v1/uploads", params={"reference": reference}).status_code == 409
    client.post(f"/v1/searches/{study}/stop")
    assert client.delete("/v1/uploads", params={"reference": reference}).status_code == 200
    assert client.get("/v1/uploads").json()["uploads"] == []


def test_an_upload_beyond_the_limit_is_refused_stated_or_not(open_service: Open) -> None:
    client = client_of(open_service(max_upload_bytes=1000))
    assert client.post("/v1/uploads", params={"name": "a.csv"}, content=b"x" * 1001).status_code == 413
    whole = client.post("/v1/uploads", params={"name": "a.csv"}, content=(b"x" * 100 for _ in range(10**4)))
    assert whole.status_code == 422
    assert "at most 1,000 bytes a file" in whole.json()["error"]["message"]
    assert client.get("/v1/uploads").json()["uploads"] == []


def test_a_broken_upload_is_refused_with_the_line(client: TestClient) -> None:
    answer = client.post("/v1/uploads", params={"name": "a.csv"}, content=b"text,label\na,b,c\n")
    assert answer.status_code == 422
    assert "line 2" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "%2e%2e", "/etc/passwd", "a/../../b", "\x00", "é"])
def test_paths_in_the_place_of_names_lead_nowhere(client: TestClient, name: str) -> None:
    for path in ("/v1/searches/{}", "/v1/searches/{}/log", "/v1/studies/{}", "/v1/studies/{}/report"):
        answer = client.get(path.format(quote(name, safe="")))
        assert answer.status_code in (404, 307), (path, answer.status_code)
        assert "root:" not in answer.text
    assert client.post("/v1/uploads", params={"name": name}, content=CSV).status_code == 422


def test_readers_read(client: TestClient, state: ServiceState) -> None:
    study = submit(client)["study"]
    eye = client_of(state, EYE)
    assert eye.get(f"/v1/searches/{study}").json()["is_own"] is False
    assert eye.post("/v1/searches", json={"settings": SETTINGS}).status_code == 403
    assert state.submissions.load(study).state is SubmissionState.QUEUED
    assert ADA not in eye.get("/v1/searches").text
