from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopeft.artifacts import Artifact, ArtifactStore, open_artifacts
from autopeft.exceptions import ArtifactError, NotFoundError, UsageError
from tests.artifacts.conftest import run_with_small_disk


def all_files(folder: Path) -> list[Path]:
    return [item for item in folder.rglob("*") if item.is_file()]


@given(content=st.binary(max_size=3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_content_comes_back_as_it_was_under_its_sha256(store: ArtifactStore, tmp_path: Path, content: bytes) -> None:
    artifact = store.put(content)
    assert artifact == Artifact(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    target = tmp_path / "back"
    store.fetch(artifact, target)
    assert target.read_bytes() == content == store.read(artifact)


def test_a_file_and_the_same_bytes_are_one_artifact(folder_store: ArtifactStore, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc" * 1000)
    assert folder_store.put(file) == folder_store.put(b"abc" * 1000)
    assert len(all_files(tmp_path / "artifacts")) == 1


def test_a_shorter_leftover_of_another_writer_is_written_again(folder_store: ArtifactStore, tmp_path: Path) -> None:
    artifact = folder_store.put(b"whole")
    (found,) = all_files(tmp_path / "artifacts")
    found.write_bytes(b"wh")
    folder_store.put(b"whole")
    assert folder_store.read(artifact) == b"whole"


def test_damaged_content_is_not_handed_out(folder_store: ArtifactStore, tmp_path: Path) -> None:
    artifact = folder_store.put(b"whole")
    (found,) = all_files(tmp_path / "artifacts")
    for damaged in (b"whale", b"who", b"whole and more"):
        found.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="is damaged: it must have 5 bytes"):
            folder_store.fetch(artifact, tmp_path / "target")
        with pytest.raises(ArtifactError, match="is damaged"):
            folder_store.read(artifact)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["artifacts"]


def test_a_missing_artifact_says_where_it_was_looked_for(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="AUTOPEFT_ARTIFACTS"):
        store.fetch(Artifact(sha256="0" * 64, size=1), tmp_path / "x")
    with pytest.raises(NotFoundError):
        store.read_named("reports/none.html")
    assert not (tmp_path / "x").exists()


def test_names_hold_the_latest_content(store: ArtifactStore) -> None:
    where = store.put_named("studies/a/report.html", b"one")
    assert where.endswith("named/studies/a/report.html")
    assert store.read_named("studies/a/report.html") == b"one"
    store.put_named("studies/a/report.html", b"two")
    store.put_named("studies/a/deep/x", b"3")
    assert store.read_named("studies/a/report.html") == b"two"
    assert store.list_named("studies/a") == ["studies/a/deep/x", "studies/a/report.html"]
    assert store.list_named("studies/b") == []


@pytest.mark.parametrize("name", ["../outside", "/etc/cron.d/x", "a/../../b", "..\\x"])
def test_a_name_leads_nowhere_else(folder_store: ArtifactStore, tmp_path: Path, name: str) -> None:
    for attempt in (folder_store.read_named, folder_store.list_named, lambda item: folder_store.put_named(item, b"x")):
        with pytest.raises(UsageError):
            attempt(name)
    assert list(tmp_path.iterdir()) == []


def test_a_hash_that_is_a_path_is_refused() -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        Artifact(sha256="../" * 21 + "x", size=1)
    with pytest.raises(UsageError, match="at least 0"):
        Artifact(sha256="0" * 64, size=-1)


def test_too_much_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    small = open_artifacts(tmp_path / "artifacts", max_bytes=10)
    for attempt in (lambda: small.put(b"x" * 11), lambda: small.put_named("a", b"x" * 11)):
        with pytest.raises(ArtifactError, match="has 11 bytes, and 10 are allowed"):
            attempt()
    with pytest.raises(ArtifactError, match="10 are allowed"):
        small.fetch(Artifact(sha256="0" * 64, size=11), tmp_path / "x")
    assert all_files(tmp_path) == []
    open_artifacts(tmp_path / "artifacts").put_named("big", b"x" * 100)
    with pytest.raises(ArtifactError, match="more than 20 bytes"):
        small.read_named("big", limit=20)


def test_a_source_that_cannot_be_read_is_named(folder_store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot read .*gone\.csv: it is not there"):
        folder_store.put(tmp_path / "gone.csv")


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match=r"cannot .*file/below"):
        open_artifacts(tmp_path / "file" / "below").put(b"x")


@pytest.mark.parametrize(
    ("options", "words"),
    [("size=64k", ("the disk is full", "free some space")), ("ro", ("it is read-only", "--artifacts"))],
)
def test_a_full_and_a_read_only_disk_are_told_and_leave_nothing(
    tmp_path: Path, options: str, words: tuple[str]
) -> None:
    """Oracle: the kernel's own ENOSPC and EROFS, of a file system mounted for this."""
    code = f"""
from pathlib import Path
from autopeft.artifacts import open_artifacts
try:
    open_artifacts({str(tmp_path)!r}).put(b"x" * 200_000)
except Exception as error:
    print(type(error).__name__, error)
print([item.name for item in Path({str(tmp_path)!r}).rglob("*") if item.is_file()])
"""
    done = run_with_small_disk(tmp_path, code, options=options)
    assert done.stdout.startswith("ArtifactError"), done.stderr
    for word in words:
        assert word in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_full_disk_where_it_is_fetched_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    code = f"""
from pathlib import Path
from autopeft.artifacts import open_artifacts
store = open_artifacts({str(tmp_path / "artifacts")!r})
try:
    store.fetch(store.put(b"x" * 200_000), Path({str(tmp_path / "small")!r}) / "x")
except Exception as error:
    print(type(error).__name__, error)
print([item.name for item in Path({str(tmp_path / "small")!r}).iterdir()])
"""
    done = run_with_small_disk(tmp_path / "small", code, options="size=64k")
    assert done.stdout.startswith(f"ArtifactError cannot write {tmp_path}/small/x: the disk is full"), done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs the rights of root")
def test_missing_rights_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    code = f"""
import os
from autopeft.artifacts import open_artifacts
store = open_artifacts({str(tmp_path / "mine")!r})
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    store.put(b"x")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ArtifactError" in done.stdout, done.stderr
    assert "permission is denied; change its permissions" in done.stdout


def test_a_writer_that_is_killed_leaves_no_half_artifact(tmp_path: Path) -> None:
    """Writers are killed at random moments; whatever is there afterwards under its final name is whole."""
    code = f"""
import sys
from autopeft.artifacts import open_artifacts
store = open_artifacts({str(tmp_path)!r})
print("go", flush=True)
for i in range(10_000):
    store.put(i.to_bytes(4, "big") * 100_000)
    store.put_named("latest", i.to_bytes(4, "big") * 100_000)
"""
    for delay in (0.05, 0.11, 0.23):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    found = [item for item in all_files(tmp_path / "sha256") if not item.name.startswith(".")]
    assert found
    for item in found:
        assert hashlib.sha256(item.read_bytes()).hexdigest() == item.name
    content = open_artifacts(tmp_path).read_named("latest")
    assert content == content[:4] * 100_000
    assert open_artifacts(tmp_path).list_named("latest") == ["latest"]


def test_many_writers_of_equal_content_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = f"""
from autopeft.artifacts import open_artifacts
store = open_artifacts({str(tmp_path)!r})
for i in range(40):
    assert store.read(store.put(bytes([i]) * 50_000)) == bytes([i]) * 50_000
"""
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [item.wait(120) for item in writers] == [0] * 4
    assert len(all_files(tmp_path)) == 40


class TestObjectStore:
    """The same against a server that speaks S3."""

    @pytest.fixture(autouse=True)
    def _credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    @pytest.fixture
    def bucket(self, s3_endpoint: str) -> str:
        from pyarrow.fs import FileSystem

        name = f"bucket-{uuid.uuid4().hex[:8]}"
        native, _ = FileSystem.from_uri(f"s3://{name}?{s3_endpoint}&allow_bucket_creation=true")
        native.create_dir(name)
        return name

    def test_round_trip(self, s3_endpoint: str, bucket: str, tmp_path: Path) -> None:
        store = open_artifacts(f"s3://{bucket}/team/autopeft?{s3_endpoint}")
        content = os.urandom(6_000_000)
        artifact = store.put(content)
        assert store.put(content) == artifact
        store.fetch(artifact, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        where = store.put_named("studies/a/report.html", b"one")
        assert where == f"s3://{bucket}/team/autopeft/named/studies/a/report.html"
        store.put_named("studies/a/report.html", b"two")
        assert store.read_named("studies/a/report.html") == b"two"
        assert store.list_named("studies") == ["studies/a/report.html"]
        with pytest.raises(NotFoundError):
            store.read(Artifact(sha256="0" * 64, size=1))

    def test_a_bucket_that_is_not_there_is_told(self, s3_endpoint: str) -> None:
        with pytest.raises(ArtifactError, match="there is no such bucket"):
            open_artifacts(f"s3://no-such-bucket/x?{s3_endpoint}").put(b"x")

    def test_a_server_that_is_not_there_is_told(self) -> None:
        store = open_artifacts("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
        with pytest.raises(ArtifactError, match=r"it cannot be reached .*check the network and the endpoint"):
            store.put(b"x")
