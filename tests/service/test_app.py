from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from autopeft.exceptions import StoreError
from autopeft.service import ServiceState, create_app
from tests.service.conftest import ADA, SETTINGS, FakeDrivers, client_of


def test_a_submitted_search_is_driven_while_the_application_runs_and_waits_for_the_next_one(
    state: ServiceState, drivers: FakeDrivers
) -> None:
    """The whole life of an application: start, submit, drive, end."""
    with TestClient(
        create_app(state), base_url="http://localhost", headers={"Authorization": f"Bearer {ADA}"}
    ) as client:
        assert client.get("/readyz").json()["status"] == "ok"
        study = client.post("/v1/searches", json={"settings": SETTINGS}).json()["study"]
        for _ in range(200):
            if client.get(f"/v1/searches/{study}").json()["state"] == "RUNNING" and drivers.started:
                break
        assert [name for name, _ in drivers.started] == [study]
        drivers.codes[f"host:k:1:{study}"] = 130
    assert drivers.stopped == [(f"host:k:1:{study}", True)]
    assert state.submissions.load(study).state.value == "QUEUED"


def test_it_is_not_ready_while_the_scheduler_is_not(client: TestClient) -> None:
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_it_is_not_ready_without_its_database(state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StoreError("the database is gone")

    monkeypatch.setattr(state.submissions, "counts", fail)
    assert client_of(state).get("/readyz").status_code == 503


def test_the_description_is_complete_and_for_callers_alone(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    paths = document["paths"]
    assert {"/v1/searches", "/v1/searches/{study}/stop", "/v1/studies/{study}/front", "/v1/uploads"} <= set(paths)
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    text = json.dumps(document)
    assert "http://" not in text.replace("http://json-schema.org", "")
    for page in ("/docs", "/redoc"):
        assert client.get(page).status_code == 404


def test_what_is_large_travels_packed(client: TestClient, study_name: str) -> None:
    answer = client.get(f"/v1/studies/{study_name}/archive", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["archive"]["spec"]["name"] == study_name


def test_slashes_do_not_lead_elsewhere(client: TestClient) -> None:
    answer = client.get("/v1/studies/", follow_redirects=False)
    assert answer.status_code == 404
    assert "location" not in answer.headers
