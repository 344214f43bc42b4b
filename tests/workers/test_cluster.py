"""Who may be joined, and what is said when not. A stub stands for the cluster: it asks for a token, or for none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from autopeft.exceptions import MachineError, UsageError
from tests.ports import free_port
from workers import cluster
from workers.cluster import Address, Answer, admitted, ask, find_address, find_token

TOKEN = "a-secret-token-of-32-characters-"


class Stub(grpc.GenericRpcHandler):
    """Answers everything; with a token only those who bring it."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def service(self, details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization")

        def answer(_: bytes, context: Any) -> bytes:
            if self._token is not None and given != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


def serve(token: str | None) -> tuple[grpc.Server, Address]:
    server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[Stub(token)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, Address(text=f"ray://127.0.0.1:{port}", host="127.0.0.1", port=port, kind="client")


@pytest.fixture
def protected() -> Iterator[Address]:
    server, address = serve(TOKEN)
    yield address
    server.stop(None).wait()


@pytest.fixture
def unprotected() -> Iterator[Address]:
    server, address = serve(None)
    yield address
    server.stop(None).wait()


def test_what_a_cluster_answers(protected: Address, unprotected: Address) -> None:
    assert ask(protected, None) is Answer.REFUSED
    assert ask(protected, "guess") is Answer.REFUSED
    assert ask(protected, TOKEN) is Answer.WELCOME
    assert ask(unprotected, None) is Answer.WELCOME
    port = free_port()
    assert ask(Address(text="x", host="127.0.0.1", port=port, kind="gcs"), None) is Answer.SILENT


def test_with_the_right_token_one_is_let_in(protected: Address, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    admitted(protected, environment)
    assert environment["RAY_AUTH_MODE"] == "token"


def test_a_wrong_token_is_told_and_never_shown(protected: Address) -> None:
    with pytest.raises(MachineError, match=r"does not accept the token .*RAY_AUTH_TOKEN_PATH") as caught:
        admitted(protected, {"RAY_AUTH_TOKEN": "my-other-secret"})
    assert "my-other-secret" not in str(caught.value)


def test_a_missing_token_is_told(protected: Address, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"asks for a token; put it into a file and set RAY_AUTH_TOKEN_PATH"):
        admitted(protected, {"HOME": str(tmp_path)})


def test_a_cluster_without_a_token_is_joined_on_this_machine_alone(
    unprotected: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment: dict[str, str] = {}
    admitted(unprotected, environment)
    assert environment == {"RAY_AUTH_MODE": "disabled"}
    monkeypatch.setattr(Address, "is_loopback", False)
    with pytest.raises(MachineError, match=r"asks for no token: everyone who reaches it can run code.*RAY_AUTH_MODE"):
        admitted(unprotected, {})


def test_nobody_there_is_told_at_once() -> None:
    address = find_address(f"ray://127.0.0.1:{free_port()}")
    with pytest.raises(MachineError, match=r"no Ray cluster answers at ray://127.0.0.1:\d+\. Check the address"):
        admitted(address, {})


def test_certificates_on_both_sides_are_enough() -> None:
    admitted(Address(text="x", host="10.0.0.1", port=1, kind="gcs"), {"RAY_USE_TLS": "1"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ray://head:10001", ("ray://head:10001", "head", 10001, "client")),
        ("ray://head", ("ray://head:10001", "head", 10001, "client")),
        ("ray://127.0.0.1:5/", ("ray://127.0.0.1:5", "127.0.0.1", 5, "client")),
    ],
)
def test_addresses_are_read(given: str, expected: tuple[str, str, int, str]) -> None:
    found = find_address(given, {})
    assert (found.text, found.host, found.port, found.kind) == expected


@pytest.mark.parametrize("given", ["head:6379", "http://head", "ray://", "ray://head:port", "ray://head:99999", ""])
def test_other_addresses_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match=r"address is (auto or )?ray://HOST:PORT, but got"):
        find_address(given, {})


def test_auto_is_the_environments_or_this_machines(tmp_path: Path) -> None:
    assert find_address("auto", {"RAY_ADDRESS": "ray://head:7"}).text == "ray://head:7"
    (tmp_path / "ray").mkdir()
    with pytest.raises(MachineError, match=r"--address auto found no Ray cluster.*`ray start`"):
        find_address("auto", {"RAY_TMPDIR": str(tmp_path)})
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.5:6379")
    found = find_address("auto", {"RAY_TMPDIR": str(tmp_path)})
    assert (found.host, found.port, found.kind, found.is_loopback) == ("10.0.0.5", 6379, "gcs", False)


@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", True), ("127.0.0.9", True), ("[::1]", True), ("h", False)]
)
def test_loopback_is_this_machine(host: str, expected: bool) -> None:
    assert Address(text="x", host=host, port=1, kind="gcs").is_loopback is expected


def test_tokens_come_from_where_ray_takes_them(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("third")
    (tmp_path / "second").write_text("second")
    home = {"HOME": str(tmp_path)}
    named = {**home, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "second")}
    assert find_token({**named, "RAY_AUTH_TOKEN": "first"}) == "first"
    assert find_token(named) == "second"
    assert find_token(home) == "third"
    assert find_token({"HOME": str(tmp_path / "nowhere")}) is None
    with pytest.raises(MachineError, match=r"missing \(RAY_AUTH_TOKEN_PATH\) cannot be read"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")})
    (tmp_path / "empty").touch()
    with pytest.raises(MachineError, match="is empty"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "empty")})


@pytest.mark.parametrize("missing", ["ray", "grpc"])
def test_what_is_not_installed_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cluster.find_spec
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(MachineError, match=r"--executor ray needs Ray.*pip install 'autopeft\[ray\]'"):
        cluster.require_ray()
