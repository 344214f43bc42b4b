"""The cluster of docker-compose.yml, up as long as a test runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.containers import Container, Networks, networks, why_not
from tests.deployment.compose import BASE, ROOT, read

_SCALE = {"worker": 2}
_UP_S = 120.0

_REQUEST = """
import json, sys, urllib.error, urllib.request
method, url, token, body = sys.argv[1:5]
data = sys.stdin.buffer.read() if body == "-" else body.encode() or None
headers = {"Authorization": f"Bearer {token}"} if token else {}
if data is not None:
    headers["Content-Type"] = "application/octet-stream" if body == "-" else "application/json"
request = urllib.request.Request(url, data=data, method=method, headers=headers)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        code, text = answer.status, answer.read().decode()
except urllib.error.HTTPError as error:
    code, text = error.code, error.read().decode()
print(json.dumps([code, text]))
"""


@dataclass
class Cluster:
    """The running cluster.

    Args:
        compose: The file, variables replaced.
        folder: For everything.
        nets: The networks.
        secrets: Files of the secrets.
    """

    compose: Mapping[str, Any]
    folder: Path
    nets: Networks
    secrets: Mapping[str, Path]
    containers: dict[str, list[Container]] = field(default_factory=dict)
    started_in_s: dict[str, float] = field(default_factory=dict)
    client: str = ""

    def make(self) -> None:
        """Give every container its addresses, before any of them looks one up."""
        volumes = {name: self.folder / "volumes" / name for name in self.compose["volumes"]}
        for path in volumes.values():
            path.mkdir(parents=True)
            path.chmod(0o1777)
        hosts = self.folder / "hosts"
        for service, settings in self.compose["services"].items():
            count = _SCALE.get(service, 1)
            names = [service] if count == 1 else [f"{service}-{index + 1}" for index in range(count)]
            self.containers[service] = [
                Container(
                    name=name,
                    service=settings,
                    namespace=self.nets.join(name, settings["networks"]),
                    folder=self.folder / "containers" / name,
                    volumes=volumes,
                    secrets=self.secrets,
                    hosts=hosts,
                )
                for name in names
            ]
        # Whoever sits before this machine: on the network that leads out, and on no other.
        self.client = self.nets.join("client", ["edge"])
        lines = [f"{address} {name}" for name, address in self.nets.hosts.items()]
        hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def up(self) -> None:
        """Start the services as their conditions allow."""
        waiting = dict(self.compose["services"])
        while waiting:
            ready = [name for name, item in waiting.items() if not set(item.get("depends_on", ())) & set(waiting)]
            assert ready, f"services wait for each other: {', '.join(waiting)}"
            for name in ready:
                for item in self.containers[name]:
                    item.start()
                del waiting[name]
            for name in ready:
                self._await(name)

    def _await(self, name: str) -> None:
        start = time.monotonic()
        for item in self.containers[name]:
            if item.service["restart"] == "no":
                assert item.wait(_UP_S) == 0, f"{item.name} failed: {item.log[-4000:]}"
                continue
            while not item.is_healthy():
                assert item.process is not None
                assert item.process.poll() is None, f"{item.name} has ended: {item.log[-4000:]}"
                assert time.monotonic() < start + _UP_S, f"{item.name} is not healthy: {item.log[-4000:]}"
                time.sleep(0.5)
        self.started_in_s[name] = time.monotonic() - start

    def down(self) -> None:
        for items in reversed(list(self.containers.values())):
            for item in items:
                item.stop(grace_s=10)

    def ask(self, method: str, url: str, body: Any = None, *, token: str | None = None) -> tuple[int, Any]:
        """Send a request from the client's side of the network.

        Returns:
            Status, and the answer: JSON as data, else text.
        """
        is_raw = isinstance(body, bytes)
        own = self.secret("api_token") if token is None else token
        words = [sys.executable, "-c", _REQUEST, method, url, own]
        words.append("-" if is_raw else "" if body is None else json.dumps(body))
        done = subprocess.run(
            ["ip", "netns", "exec", self.client, *words],
            input=body if is_raw else b"",
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        code, text = json.loads(done.stdout)
        try:
            return code, json.loads(text)
        except ValueError:
            return code, text

    def url(self, service: str) -> str:
        port = self.compose["services"][service]["ports"][0].rpartition(":")[2]
        index = list(self.compose["networks"]).index("edge")
        address = self.nets.hosts[service].split(".")
        return f"http://10.{89 + index}.0.{address[3]}:{port}"

    def secret(self, name: str) -> str:
        return self.secrets[name].read_text().strip()

    def logs(self) -> str:
        return "\n".join(f"=== {item.name}\n{item.log[-3000:]}" for many in self.containers.values() for item in many)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Skips where namespaces are not allowed, but not in continuous integration."""
    reason = why_not()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    folder = tmp_path_factory.mktemp("cluster")
    for parent in (folder, *folder.parents):
        # Secrets are handed over by their owner; the folders on the way must let the service's user through.
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    init = [sys.executable, "-m", "autopeft.cli", "cluster", "init", str(folder)]
    subprocess.run(init, cwd=ROOT, check=True, capture_output=True)
    lines = (folder / ".env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines) | {"AUTOPEFT_WORKER_CPUS": "1"}
    compose = read(BASE, variables)
    secrets = {name: folder / item["file"] for name, item in compose["secrets"].items()}
    with networks(list(compose["networks"])) as nets:
        made = Cluster(compose=compose, folder=folder, nets=nets, secrets=secrets)
        made.make()
        try:
            made.up()
            yield made
        finally:
            made.down()
