from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.conftest import ADA


def records(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [item for item in caplog.records if item.name == "autopeft.service.access"]


def test_every_answer_is_a_record_that_names_the_caller_and_no_secret(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "autopeft.service.access"):
        client.get("/v1/studies/nothing", params={"token": "secret-in-the-query"})
        client.get("/v1/studies", headers={"Authorization": "Bearer wrong-0123456789"})
        client.get("/healthz")
    first, second = records(caplog)
    assert (first.method, first.path, first.status, first.caller) == ("GET", "/v1/studies/nothing", 404, "ada")
    assert first.seconds >= 0
    assert (second.status, second.caller) == (401, None)
    for secret in (ADA, "secret-in-the-query", "wrong-0123456789"):
        assert secret not in "".join(str(vars(item)) for item in records(caplog))


def test_a_path_cannot_write_lines_of_its_own(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "autopeft.service.access"):
        client.get("/v1/studies/a%0Aerror:%20forged%1B[2J")
    (found,) = records(caplog)
    assert "\n" not in found.getMessage()
    assert "\x1b" not in found.getMessage()


def test_what_fails_inside_is_recorded_as_500(
    client: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopeft.store.SqlStore.list_studies", lambda _: 1 / 0)
    with caplog.at_level(logging.INFO, "autopeft.service.access"), pytest.raises(ZeroDivisionError):
        client.get("/v1/studies")
    assert records(caplog)[-1].status == 500
