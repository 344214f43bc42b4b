from __future__ import annotations

import logging

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.service.conftest import ADA, EYE, Open, client_of


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ADA},
        {"Authorization": f"Basic {ADA}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {ADA}x"},
        {"Authorization": f"Bearer {ADA[:-1]}"},
        {"Authorization": f"Bearer {ADA} {ADA}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"X-Authorization": f"Bearer {ADA}"},
        {"Cookie": f"token={ADA}"},
    ],
)
def test_without_a_valid_token_nothing_is_told(client: TestClient, headers: dict[str, str]) -> None:
    client.headers.pop("Authorization")
    encoded = {key: value.encode("latin-1") for key, value in headers.items()}
    for method, path in [
        ("GET", "/v1/studies"),
        ("POST", "/v1/searches"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
    ]:
        answer = client.request(method, path, headers=encoded)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert set(answer.json()) == {"error", "status"}


def test_a_token_in_the_address_is_no_token(client: TestClient) -> None:
    client.headers.pop("Authorization")
    assert client.get("/v1/studies", params={"token": ADA, "access_token": ADA}).status_code == 401


def test_two_tokens_are_none(client: TestClient) -> None:
    client.headers.pop("Authorization")
    twice = [("Authorization", "Bearer nobody"), ("Authorization", f"Bearer {ADA}")]
    assert client.get("/v1/studies", headers=twice).status_code == 401


def test_health_needs_no_token_and_tells_nothing(client: TestClient) -> None:
    client.headers.pop("Authorization")
    assert client.get("/healthz").json() == {"schema_version": 1, "status": "ok"}
    assert set(client.get("/readyz").json()) == {"schema_version", "status"}


def test_a_reader_may_only_read(open_service: Open) -> None:
    client = client_of(open_service(), EYE)
    assert client.get("/v1/studies").status_code == 200
    for method in ("POST", "DELETE", "PUT", "PATCH"):
        assert client.request(method, "/v1/searches").status_code == 403


def test_too_many_requests_are_refused_by_caller_with_or_without_token(open_service: Open) -> None:
    state = open_service(rate=0.001, burst=3)
    client = client_of(state)
    assert [client.get("/v1/studies").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert int(client.get("/v1/studies").headers["retry-after"]) > 0
    stranger = [client.get("/v1/studies", headers={"Authorization": "Bearer x"}).status_code for _ in range(5)]
    assert stranger == [401, 401, 401, 429, 429]
    assert client.get("/healthz").status_code == 200


def test_without_tokens_everybody_may(open_service: Open) -> None:
    client = client_of(open_service(tokens=None), None)
    assert client.get("/v1/studies").status_code == 200


def test_metrics_are_open_on_loopback_but_not_through_a_proxy(open_service: Open) -> None:
    client = client_of(open_service(), None)
    assert client.get("/metrics").status_code == 200
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        assert client.get("/metrics", headers={name: "for=1.2.3.4"}).status_code == 401
    public = client_of(open_service(host="0.0.0.0"), None)
    assert public.get("/metrics").status_code == 401


def test_no_token_is_ever_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.get("/v1/studies/nothing")
        client.get("/v1/studies", headers={"Authorization": f"Bearer {ADA}-wrong"})
        client.post("/v1/searches", json={"settings": {"task": 1}})
    assert ADA not in caplog.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8500", "127.0.0.1.evil.example", "", "[::1", "a b"])
def test_a_foreign_host_is_refused_on_loopback(client: TestClient, host: str) -> None:
    assert client.get("/v1/studies", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8500", "LOCALHOST"])
def test_own_names_are_welcome(client: TestClient, host: str) -> None:
    assert client.get("/v1/studies", headers={"Host": host}).status_code == 200


def test_headers_that_claim_another_host_or_path_change_nothing(client: TestClient) -> None:
    claims = {"X-Forwarded-Host": "evil.example", "X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz"}
    assert client.get("/v1/studies", headers=claims).status_code == 200
    client.headers.pop("Authorization")
    assert client.get("/v1/studies", headers=claims).status_code == 401
    override = {"X-HTTP-Method-Override": "GET"}
    assert client.post("/v1/searches", headers=override).status_code == 401


def test_there_are_no_websockets(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("ws://127.0.0.1/v1/studies"):
        pass
    assert caught.value.code == 1008
