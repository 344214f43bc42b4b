"""A real Ray cluster of processes on this machine: a head without cores, and nodes that come and go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.ports import free_port

TOKEN = "f" * 64
#: Each node has a loopback address of its own; 127.0.0.1 itself Ray would exchange for the machine's public one.
HEAD = "127.0.0.2"
STARTED = "Ray runtime started"
_UNTIL_STARTED = f"""
log=$1; shift
for attempt in 1 2 3; do
    "$@"; status=$?
    grep -q '{STARTED}' "$log" && exit $status
done
exit $status
"""


class RayCluster:
    """Started by the very commands of the documentation; everything on loopback, with a token."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ar", dir="/tmp"))
        self.port, self.client_port = free_port(), free_port()
        self.token_file = self.folder / "token"
        self.token_file.write_text(TOKEN)
        self.token_file.chmod(0o600)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._ray = str(Path(sys.executable).with_name("ray"))
        self._killed: list[subprocess.Popen[bytes]] = []
        self.head = self._start(
            "--head", f"--port={self.port}", f"--ray-client-server-port={self.client_port}", "--num-cpus=0",
            f"--node-ip-address={HEAD}", "--include-dashboard=false", "--disable-usage-stats",
            f"--temp-dir={self.folder / 'r'}",
        )  # fmt: skip
        try:
            self._wait_for_port(self.client_port)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        return f"ray://{HEAD}:{self.client_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a driver or a node needs."""
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": str(self.folder),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def add_node(self, *, cpus: int = 1, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        address = f"127.0.0.{2 + len(self.processes)}"
        flags = (f"--address={HEAD}:{self.port}", f"--num-cpus={cpus}", f"--node-ip-address={address}")
        return self._start(*flags, environment=environment)

    def wait_for_nodes(self) -> None:
        """Until every node that was started has joined: a search gives up on a cluster that stays empty."""
        deadline = time.monotonic() + 120
        for i, process in enumerate(self.processes):
            log = self.folder / f"start-{i}.log"
            while process not in self._killed and STARTED not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)

    def kill_node(self, node: subprocess.Popen[bytes]) -> None:
        """End a node with everything on it, as a machine that loses its power does."""
        self._killed.append(node)
        # What starts Ray again must not do so meanwhile.
        node.send_signal(signal.SIGSTOP)
        family = [node, *psutil.Process(node.pid).children(recursive=True)]
        for process in family:
            with_pid = psutil.Process(process.pid) if psutil.pid_exists(process.pid) else None
            if with_pid is not None:
                with_pid.kill()
        node.wait(timeout=30)

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                self.kill_node(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *flags: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Ray gives a start up when one question to a busy head stays unanswered; compose and systemd start again.

        What ends after it had started is not started again: that is for the test to notice.
        """
        path = self.folder / f"start-{len(self.processes)}.log"
        log = path.open("wb")
        with log:
            process = subprocess.Popen(
                ["sh", "-c", _UNTIL_STARTED, "sh", str(path), self._ray, "start", *flags, "--block"],
                env={**self.environment, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def _wait_for_port(self, port: int) -> None:
        import socket

        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((HEAD, port)) == 0:
                    return
            assert self.head.poll() is None, (self.folder / "start-0.log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.folder / "start-0.log").read_text())
