from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import trustme

from autopeft.cli._client import ServiceClient, find_token, search_path, study_path
from autopeft.exceptions import AutoPeftError, NotFoundError, ServiceError, SubmissionConflictError, UsageError

TOKEN = "0123456789abcdef"
Handler = Callable[[httpx2.Request], httpx2.Response]


def client(handler: Handler, url: str = "http://127.0.0.1:8500", token: str | None = TOKEN) -> ServiceClient:
    return ServiceClient(url, token, transport=httpx2.MockTransport(handler), sleep=lambda _: None)


def answering(status: int, document: object, **headers: str) -> Handler:
    return lambda _: httpx2.Response(status, json=document, headers=headers)


def test_the_token_goes_in_the_header_and_nowhere_else() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"schema_version": 1, "a": 1})

    assert client(handler).get("/v1/studies", limit=3) == {"schema_version": 1, "a": 1}
    assert seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert str(seen[0].url) == "http://127.0.0.1:8500/v1/studies?limit=3"
    client(handler, token=None).get("/v1/studies")
    assert "authorization" not in seen[1].headers


def test_a_redirect_does_not_get_the_token() -> None:
    seen = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(307, headers={"Location": "https://evil.example/"})

    with pytest.raises(ServiceError, match="307"):
        client(handler).get("/v1/studies")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UsageError),
        (401, ServiceError),
        (403, UsageError),
        (404, NotFoundError),
        (409, SubmissionConflictError),
        (413, UsageError),
        (422, UsageError),
        (429, ServiceError),
        (500, ServiceError),
        (503, ServiceError),
    ],
)
def test_refusals_are_errors_in_the_services_words(status: int, kind: type[AutoPeftError]) -> None:
    with pytest.raises(kind) as caught:
        client(answering(status, {"error": {"kind": "x", "message": "because"}})).get("/x")
    assert type(caught.value) is kind
    text = str(caught.value)
    assert "http://127.0.0.1:8500" in text
    assert ("because" in text) is (status != 401)
    assert TOKEN not in text
    if status == 401:
        assert "--token-file" in text


@pytest.mark.parametrize("body", [b"<html>hello", b"[]", b'{"a": 1}', b"[" * 100_000, b""])
@pytest.mark.parametrize("status", [200, 502])
def test_what_is_no_service_is_said_to_be_none(status: int, body: bytes) -> None:
    with pytest.raises(ServiceError):
        client(lambda _: httpx2.Response(status, content=body)).get("/x")


def test_another_version_is_said() -> None:
    with pytest.raises(ServiceError, match="version 9 of the API"):
        client(answering(200, {"schema_version": 9})).get("/x")


def test_too_many_requests_are_waited_for() -> None:
    answers = [httpx2.Response(429, headers={"Retry-After": "3"}, json={}) for _ in range(2)]
    answers.append(httpx2.Response(200, json={"schema_version": 1}))
    waited: list[float] = []
    made = ServiceClient(
        "http://localhost", None, transport=httpx2.MockTransport(lambda _: answers.pop(0)), sleep=waited.append
    )
    assert made.get("/x") == {"schema_version": 1}
    assert waited == [3, 3]


def test_out_of_reach_says_what_to_check() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("Connection refused", request=request)

    with pytest.raises(ServiceError, match=r"cannot be reached \(Connection refused\); is the service running"):
        client(handler).get("/x")

    def untrusted(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", request=request)

    with pytest.raises(ServiceError, match="--ca-file"):
        client(untrusted).get("/x")


def test_uploads_are_streamed_with_their_length(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"x" * 3_000_000)

    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["content-length"] == "3000000"
        assert request.url.params["name"] == "reviews.csv"
        assert len(request.read()) == 3_000_000
        return httpx2.Response(201, json={"schema_version": 1, "reference": "upload:x"})

    assert client(handler).upload(path) == "upload:x"
    with pytest.raises(UsageError, match=r"missing\.csv cannot be read"):
        client(handler).upload(tmp_path / "missing.csv")


def test_posts_are_json() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        assert json.loads(request.read() or b"null") in ({"a": [1]}, None)
        return httpx2.Response(202, json={"schema_version": 1})

    client(handler).post("/x", {"a": [1]})
    client(handler).post("/x")


@pytest.mark.parametrize(
    "url", ["host:8500", "ftp://host", "https://", "https://u:p@host", "https://host?token=x", "https://host#x", ""]
)
def test_urls_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--server"):
        client(answering(200, {}), url)


def test_a_token_in_the_clear_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    client(answering(200, {}), "http://10.0.0.1:8500")
    assert "unencrypted" in capsys.readouterr().err
    client(answering(200, {}), "https://10.0.0.1:8500")
    client(answering(200, {}), "http://10.0.0.1:8500", None)
    client(answering(200, {}), "http://localhost:8500")
    assert capsys.readouterr().err == ""


def test_certificates_of_ones_own(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    ServiceClient("https://localhost", None, ca_file=tmp_path / "ca.pem").close()
    for name in ("missing.pem", "empty.pem"):
        (tmp_path / "empty.pem").touch()
        with pytest.raises(UsageError, match="no certificates can be read"):
            ServiceClient("https://localhost", None, ca_file=tmp_path / name)


def test_ones_token_is_of_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for text in (f"{TOKEN}\n", f"# mine\nada {TOKEN} write\n"):
        path.write_text(text)
        assert find_token(path, {}) == TOKEN
        assert find_token(None, {"AUTOPEFT_API_TOKEN_FILE": str(path), "AUTOPEFT_API_TOKEN": "other"}) == TOKEN
    assert find_token(None, {"AUTOPEFT_API_TOKEN": TOKEN}) == TOKEN
    assert find_token(None, {}) is None
    path.write_text(f"ada {TOKEN}\nbob {TOKEN}2\n")
    with pytest.raises(UsageError, match="holds 2") as caught:
        find_token(path, {})
    assert TOKEN not in str(caught.value)


def test_names_are_encoded_in_paths() -> None:
    assert study_path("a/b?c#d", "front") == "/v1/studies/a%2Fb%3Fc%23d/front"
    assert search_path("../x") == "/v1/searches/..%2Fx"
