"""The real server in a process of its own: TLS, requests that are too large, restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import trustme

from tests.ports import free_port

TOKEN = "operator-0123456789abcdef"


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    port: int
    home: Path

    def client(self, **options: object) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, **options)  # type: ignore[arg-type]


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `autopeft serve`; gives it once it answers."""
    started: list[Server] = []

    def run(*words: str, scheme: str = "http", verify: object = True) -> Server:
        port = free_port()
        environment = {**os.environ, "AUTOPEFT_HOME": str(tmp_path / "home"), "AUTOPEFT_API_TOKEN": TOKEN}
        process = subprocess.Popen(
            [sys.executable, "-m", "autopeft.cli", "serve", "--port", str(port), *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        server = Server(process=process, url=f"{scheme}://127.0.0.1:{port}", port=port, home=tmp_path / "home")
        started.append(server)
        with httpx2.Client(verify=verify, trust_env=False) as client:  # type: ignore[arg-type]
            for _ in range(600):
                assert process.poll() is None, process.communicate()[1]
                try:
                    if client.get(f"{server.url}/readyz").status_code == 200:
                        return server
                except httpx2.TransportError:
                    pass
                time.sleep(0.1)
        raise AssertionError("the service does not start")

    yield run
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def test_it_serves_and_ends_politely_without_a_word_of_the_token(start: Start) -> None:
    server = start()
    with server.client() as client:
        assert client.get("/v1/studies").json()["studies"] == []
        assert "server" not in client.get("/v1/studies").headers
    assert httpx2.get(f"{server.url}/v1/studies", trust_env=False).status_code == 401
    server.process.send_signal(signal.SIGTERM)
    _, said = server.process.communicate(timeout=60)
    assert server.process.returncode in (0, -signal.SIGTERM)
    assert f"Serving {server.url}" in said
    assert "GET /v1/studies 200" in said
    assert TOKEN not in said


def test_its_log_is_lines_of_json_where_that_is_asked_for(start: Start) -> None:
    server = start("--log-format", "json")
    with server.client() as client:
        client.get("/v1/studies/nothing")
    server.process.send_signal(signal.SIGTERM)
    _, said = server.process.communicate(timeout=60)
    records = [json.loads(line) for line in said.splitlines()]
    (access,) = [item for item in records if item["logger"] == "autopeft.service.access"]
    assert (access["path"], access["status"], access["caller"]) == ("/v1/studies/nothing", 404, "default")
    assert any(item["logger"].startswith("uvicorn") for item in records)


def test_a_gigabyte_is_refused_without_being_read(start: Start) -> None:
    """Oracle: the bytes that the kernel took from the client before the answer came."""
    server = start()
    head = (
        f"POST /v1/searches HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\n"
    )
    for length in (f"Content-Length: {2**30}\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall((head + length).encode())
            sent, answer = 0, b""
            part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n" if "chunked" in length else b"x" * 0x10000
            connection.settimeout(0.05)
            while sent < 2**30 and not answer:
                with suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
                    sent += connection.send(part)
                try:
                    answer = connection.recv(4096)
                except TimeoutError:
                    continue
                except ConnectionResetError:
                    break
            assert answer.startswith(b"HTTP/1.1 413"), (answer[:100], sent)
            assert sent < 2**25
    with server.client() as client:
        assert client.get("/v1/studies").status_code == 200


def test_tls(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for i, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=i > 0)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = start(
        "--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"), scheme="https", verify=context
    )
    with server.client(verify=context) as client:
        assert client.get("/v1/studies").status_code == 200
    with pytest.raises(httpx2.ConnectError, match=r"(?i)certificate"):
        server.client().get("/v1/studies")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(old)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx2.ConnectError):
        server.client(verify=old).get("/v1/studies")
    plain = f"http://127.0.0.1:{server.port}/v1/studies"
    with pytest.raises(httpx2.TransportError):
        httpx2.get(plain, trust_env=False)
