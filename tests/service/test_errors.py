from __future__ import annotations

import logging

import pytest
from starlette.testclient import TestClient

from autopeft import exceptions
from autopeft.exceptions import AutoPeftError, StoreError
from autopeft.service import ServiceState
from autopeft.service._errors import STATUSES
from tests.service.conftest import client_of


def test_every_error_has_a_status_and_the_particular_ones_come_first() -> None:
    kinds = [kind for kind, _ in STATUSES]
    for i, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:i])
    for item in vars(exceptions).values():
        if isinstance(item, type) and issubclass(item, AutoPeftError):
            assert any(issubclass(item, kind) for kind in kinds)


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/v1/studies/nothing", 404, "NotFoundError"),
        ("/nothing", 404, "http"),
        ("/v1/searches?limit=0", 422, "invalid_request"),
        ("/v1/searches?state=DONE", 422, "invalid_request"),
    ],
)
def test_every_error_has_one_shape(client: TestClient, path: str, status: int, kind: str) -> None:
    answer = client.get(path)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.json()["error"]["kind"] == kind
    assert answer.json()["error"]["message"]


def test_wrong_methods_and_types_are_refused(client: TestClient) -> None:
    assert client.put("/v1/searches", content=b"{}").status_code == 405
    assert (
        client.post("/v1/searches", content=b'{"settings": {}}', headers={"Content-Type": "text/plain"}).status_code
        == 422
    )
    for body in (b"", b"{", b"[1]", b'"x"', b"\xff", b'{"settings": {}, "more": 1}', b"1" * 5000):
        answer = client.post("/v1/searches", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
        assert set(answer.json()) == {"error", "status"}


def test_what_nobody_foresaw_is_logged_and_not_told(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the inside of things")

    monkeypatch.setattr(state.store, "list_studies", fail)
    with caplog.at_level(logging.ERROR):
        answer = client_of(state, raise_server_exceptions=False).get("/v1/studies")
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert "the inside of things" in caplog.text


def test_a_lost_database_is_said_without_where_things_are(state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreError(f"database {state.settings.folder}/x.db cannot be written")

    monkeypatch.setattr(state.store, "list_studies", fail)
    answer = client_of(state).get("/v1/studies")
    assert answer.status_code == 503
    assert str(state.settings.folder) not in answer.text
