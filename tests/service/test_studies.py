from __future__ import annotations

from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from autopeft.export import front_document, report_document, show_document, trials_document
from autopeft.service import ServiceState
from autopeft.store import restore_study
from autopeft.study import Study
from tests.cli.conftest import _write_study
from tests.export.studies import hostile_study

HOSTILE = [
    "<script>alert(1)</script>",
    "'; DROP TABLE studies; --",
    "a/b%2Fc%25",
    "../../etc/passwd",
    "x?y#z&w=1",
    "ü 名",
]


def stored(state: ServiceState, name: str) -> Study:
    return state.store.load_study(name)


def test_documents_are_those_of_the_command_line(client: TestClient, state: ServiceState, study_name: str) -> None:
    study = stored(state, study_name)
    base = f"/v1/studies/{study_name}"
    versioned = {"schema_version": 1}
    assert client.get(f"{base}/front").json() == {**versioned, **front_document(study)}
    assert client.get(f"{base}/trials").json()["trials"] == trials_document(study)["trials"]
    assert client.get(f"{base}/trials/0").json() == {**versioned, **show_document(study, study.trials[0])}
    assert client.get(f"{base}/summary").json()["summary"] == study.attributes["summary"]
    report = client.get(f"{base}/report", params={"format": "json"}).json()
    expected = report_document(study)
    report["reproducibility"].pop("written_at")
    expected["reproducibility"].pop("written_at")
    assert report == {**versioned, **expected}
    status = client.get(base).json()
    assert status["counts"]["search"]["COMPLETE"] == 11
    assert status["database"] == "(database)"
    assert [item["study"] for item in client.get("/v1/studies").json()["studies"]] == [study_name]
    (listed,) = client.get("/v1/studies", params={"spec": "true"}).json()["studies"]
    assert listed["spec"] == study.spec.to_dict()


def test_the_archive_is_the_study(client: TestClient, state: ServiceState, study_name: str) -> None:
    assert restore_study(client.get(f"/v1/studies/{study_name}/archive").json()["archive"], "answer") == stored(
        state, study_name
    )


def test_trials_by_kind_state_and_page(client: TestClient, study_name: str) -> None:
    base = f"/v1/studies/{study_name}/trials"
    everything = client.get(base).json()
    pages = [client.get(base, params={"limit": 5, "offset": start}).json()["trials"] for start in range(0, 30, 5)]
    assert [item for page in pages for item in page] == everything["trials"]
    assert everything["n_trials"] == len(everything["trials"])
    failed = client.get(base, params={"state": "FAILED", "kind": "search"}).json()
    assert failed["n_trials"] == 1
    for params in ({"limit": 0}, {"limit": 10**6}, {"offset": -1}, {"state": "failed"}, {"kind": "x"}):
        assert client.get(base, params=params).status_code == 422


@pytest.mark.parametrize(
    ("which", "status"), [("best", 200), ("knee", 200), ("0", 200), ("999", 404), ("-1", 404), ("x", 404)]
)
def test_one_trial(client: TestClient, study_name: str, which: str, status: int) -> None:
    assert client.get(f"/v1/studies/{study_name}/trials/{which}").status_code == status


def test_reports_are_files_that_no_browser_runs(client: TestClient, study_name: str) -> None:
    for way, media in [("html", "text/html; charset=utf-8"), ("md", "text/markdown; charset=utf-8")]:
        answer = client.get(f"/v1/studies/{study_name}/report", params={"format": way})
        assert answer.headers["content-type"] == media
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert study_name in answer.text
    assert client.get(f"/v1/studies/{study_name}/report", params={"format": "pdf"}).status_code == 422


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_study_is_called_it_is_read_under_its_name_and_harms_nobody(
    client: TestClient, state: ServiceState, name: str
) -> None:
    _write_study(state.store, hostile_study(name))
    address = f"/v1/studies/{quote(name, safe='')}"
    assert client.get(address).json()["study"] == name
    for path in ("/front", "/trials", "/summary", "/archive", "/report?format=json", "/trials/0"):
        answer = client.get(address + path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
    page = client.get(address + "/report?format=html").text
    assert "<script>alert" not in page
    assert [item["study"] for item in client.get("/v1/studies").json()["studies"]] == [name]


def test_what_is_not_there_is_not_found(client: TestClient) -> None:
    for path in ("", "/front", "/trials", "/trials/0", "/summary", "/archive", "/report"):
        answer = client.get(f"/v1/studies/nothing{path}")
        assert answer.status_code == 404
        assert "'nothing'" in answer.json()["error"]["message"]
