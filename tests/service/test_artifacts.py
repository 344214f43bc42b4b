from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from autopeft.artifacts import open_artifacts, publish
from autopeft.service import ServiceState
from autopeft.service._artifacts import publish_report
from tests.cli.conftest import _write_study
from tests.export.studies import full_study, hostile_study
from tests.service.conftest import Open, client_of

NAME = full_study().spec.name


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def state(open_service: Open, place: Path) -> ServiceState:
    made = open_service(artifacts=str(place))
    _write_study(made.store, full_study())
    return made


@pytest.fixture
def adapter(tmp_path: Path, place: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "more").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "more" / "weights ü.safetensors").write_bytes(b"\x00\xff")
    publish(open_artifacts(place), NAME, "adapters", folder)
    return folder


def test_what_was_published_is_listed_and_downloaded(client: TestClient, adapter: Path) -> None:
    base = f"/v1/studies/{NAME}/artifacts"
    names = client.get(base).json()["artifacts"]
    assert names == ["adapters/adapter/adapter_config.json", "adapters/adapter/more/weights ü.safetensors"]
    for name in names:
        answer = client.get(f"{base}/{quote(name)}")
        assert answer.status_code == 200
        assert answer.content == (adapter / name.removeprefix("adapters/adapter/")).read_bytes()
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd", "adapters/../../../../etc/passwd", "/etc/passwd", "//etc/passwd", ".hidden",
        "a\x00b",
        "adapters/adapter", "..%2f..%2fetc%2fpasswd", "....//etc/passwd", "C:\\boot.ini", "adapters\\..\\x", "x" * 600,
        "other-study/secret", "../other/secret", "~/x",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_studys_own(client: TestClient, adapter: Path, place: Path, name: str) -> None:
    other = place / "named" / "studies" / "other"
    other.mkdir(parents=True)
    (other / "secret").write_text("secret")
    for written in (quote(name, safe=""), quote(name, safe="/")):
        answer = client.get(f"/v1/studies/{NAME}/artifacts/{written}")
        assert answer.status_code in (404, 422), answer.status_code
        assert "root:" not in answer.text
        assert answer.content != b"secret"


def test_studies_that_are_not_there_have_none_and_hostile_names_do_no_harm(
    client: TestClient, state: ServiceState, place: Path
) -> None:
    assert client.get("/v1/studies/nothing/artifacts").status_code == 404
    assert client.get(f"/v1/studies/{NAME}/artifacts").json()["artifacts"] == []
    _write_study(state.store, hostile_study("../../x"))
    (place.parent / "x").write_text("outside")
    found = client.get(f"/v1/studies/{quote('../../x', safe='')}/artifacts")
    assert found.json()["artifacts"] == []


def test_without_a_place_that_is_said(open_service: Open) -> None:
    bare = open_service()
    _write_study(bare.store, full_study())
    answer = client_of(bare).get(f"/v1/studies/{NAME}/artifacts")
    assert answer.status_code == 404
    assert "--artifacts" in answer.json()["error"]["message"]


def test_the_report_is_published_when_a_search_ends_well(client: TestClient, state: ServiceState) -> None:
    state.submissions.submit(NAME, "ada", {"task": "t"})
    state.scheduler.tick()
    state.drivers.codes[f"host:k:1:{NAME}"] = 0  # type: ignore[attr-defined]
    state.scheduler.tick()
    assert client.get(f"/v1/studies/{NAME}/artifacts").json()["artifacts"] == ["reports/report.html"]
    page = client.get(f"/v1/studies/{NAME}/artifacts/reports/report.html").text
    assert page.startswith("<!DOCTYPE html>")
    assert NAME in page


def test_a_report_that_cannot_be_published_is_logged(
    state: ServiceState, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        publish_report(state.store, open_artifacts(tmp_path / "file"), NAME)
        publish_report(state.store, open_artifacts(tmp_path / "fine"), "nothing")
    assert len(caplog.records) == 2
