from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from autopeft.artifacts import ArtifactStore, open_artifacts
from tests.ports import free_port


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return open_artifacts(tmp_path / "artifacts" if request.param == "file" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder_store(tmp_path: Path) -> ArtifactStore:
    return open_artifacts(tmp_path / "artifacts")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that speaks S3 on the loopback interface (moto's, from an environment of its own)."""
    program = os.environ.get("AUTOPEFT_TEST_S3_SERVER") or shutil.which("moto_server")
    if program is None:
        reason = "no S3 server is installed; set AUTOPEFT_TEST_S3_SERVER to moto_server of any environment"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as sink:
        server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=sink, stderr=sink)
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
        yield f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    finally:
        server.terminate()
        server.wait(10)


def run_with_small_disk(folder: Path, code: str, *, options: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a file system of its own at `folder`; skips where that is not allowed."""
    command = f'mount -t tmpfs -o {options} tmpfs "$1" && exec "$2" -c "$3"'
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("mounting needs the rights of root")
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", str(folder), sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
    )
