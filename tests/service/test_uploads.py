from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.exceptions import NotFoundError, UsageError
from autopeft.service import _uploads
from autopeft.service._uploads import Upload, UploadFolder, check_name

CSV = b"text,label\n" + b"".join(b"a nice text %d,%d\n" % (i, i % 2) for i in range(20))


async def parts_of(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.fixture
def folder(tmp_path: Path) -> UploadFolder:
    return UploadFolder(tmp_path / "uploads", max_bytes=10_000, max_stored_bytes=15_000)


def put(folder: UploadFolder, name: str, content: bytes, owner: str = "ada") -> Upload:
    return folder.keep(owner, name, asyncio.run(folder.receive(owner, name, parts_of(content, 1000))))


def test_a_file_is_kept_under_its_content_and_found_by_its_owner_alone(folder: UploadFolder) -> None:
    kept = put(folder, "reviews.csv", CSV)
    assert kept.reference == f"upload:{hashlib.sha256(CSV).hexdigest()}/reviews.csv"
    assert kept.path.read_bytes() == CSV
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert folder.find("ada", kept.reference) == kept
    assert put(folder, "reviews.csv", CSV) == kept
    assert folder.list("ada") == [kept]
    assert folder.list("bob") == []
    with pytest.raises(NotFoundError, match="no upload"):
        folder.find("bob", kept.reference)
    folder.delete("ada", kept.reference)
    assert folder.list("ada") == []


@pytest.mark.parametrize(
    "name",
    [
        "../x.csv", "a/b.csv", "/etc/x.csv", "..", ".hidden.csv", "", "a\\b.csv", "a\x00.csv", "x" * 120 + ".csv",
        "a.csv\n", "weights.bin", "model.pkl", "a.csv.exe", "a.html", "a.PY", "x", "~root.csv", "ü.csv",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_are_no_data_are_refused(folder: UploadFolder, name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="upload"):
        put(folder, name, CSV)
    assert sorted(tmp_path.rglob("*")) == before


@given(st.text())
def test_a_name_that_passes_is_a_plain_one(name: str) -> None:
    try:
        check_name(name)
    except UsageError:
        return
    assert Path(name).name == name
    assert os.sep not in name
    assert not name.startswith(".")


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "upload:",
        "upload:../../etc/passwd",
        f"upload:{'0' * 64}/../x.csv",
        f"upload:{'0' * 63}/x.csv",
        "/etc/passwd",
        f"upload:{'0' * 64}/x.csv\n",
        f"upload:{'0' * 64}//x.csv",
        f"{'0' * 64}/x.csv",
        f"upload:{'A' * 64}/x.csv",
    ],
)
def test_references_that_are_none_are_refused(folder: UploadFolder, reference: str) -> None:
    with pytest.raises(UsageError, match="no uploaded file"):
        folder.find("ada", reference)


def test_a_file_that_becomes_too_large_leaves_nothing(folder: UploadFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="10,000 bytes a file"):
        put(folder, "big.csv", b"x" * 10_001)
    put(folder, "a.csv", CSV + b"a,b\n" * 2300)
    with pytest.raises(UsageError, match="there is room for"):
        put(folder, "b.csv", CSV + b"a,c\n" * 2300)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"\xff\xfe\x00\x01", "not UTF-8"),
        ("a.csv", b"text,label\na,b,c\n", "found 3 fields"),
        ("a.jsonl", b"[1]\n", "one JSON object"),
        ("a.jsonl", b"[" * 9000, "not valid JSON"),
        ("a.parquet", b"PAR1 nothing PAR1", "not a Parquet file"),
        ("a.yaml", b"a: &a [x]\nb: *a\n", "aliases"),
        ("a.yaml", b"!!python/object/apply:os.system [id]\n", "tag"),
        ("a.yaml", b"- " * 900, "levels deep"),
        ("a.json", json.dumps({"format": "autopeft-study", "schema_version": 99}).encode(), None),
    ],
)
def test_content_is_read_in_a_process_of_its_own(
    folder: UploadFolder, name: str, content: bytes, message: str | None, tmp_path: Path
) -> None:
    if message is None:
        assert put(folder, name, content).size == len(content)
        return
    with pytest.raises(UsageError, match=message) as caught:
        put(folder, name, content)
    assert str(tmp_path) not in str(caught.value)
    assert folder.list("ada") == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_that_arrive_at_the_same_time_share_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_uploads, "_LOOK_BYTES", 1000)
    folder = UploadFolder(tmp_path, max_bytes=10_000, max_stored_bytes=15_000)

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1000
            await asyncio.sleep(0.01)

    async def all_at_once() -> list[Path | BaseException]:
        return await asyncio.gather(
            *(folder.receive("ada", f"{i}.csv", slowly()) for i in range(4)), return_exceptions=True
        )

    found = asyncio.run(all_at_once())
    refused = [item for item in found if isinstance(item, UsageError)]
    assert len(refused) >= 3
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 15_000


def test_the_same_content_under_another_name_stays(folder: UploadFolder) -> None:
    first, second = put(folder, "a.csv", CSV), put(folder, "b.csv", CSV)
    folder.delete("ada", first.reference)
    assert folder.list("ada") == [second]
    folder.delete("ada", second.reference)
    assert list(second.path.parents[1].iterdir()) == []


def test_what_a_killed_service_left_behind_takes_no_room(tmp_path: Path) -> None:
    own = tmp_path / "ada"
    own.mkdir()
    for name, age_s in ((".new-old.csv", 7200), (".new-fresh.csv", 10)):
        (own / name).write_bytes(b"x")
        os.utime(own / name, (time.time() - age_s,) * 2)
    UploadFolder(tmp_path, max_bytes=10, max_stored_bytes=10)
    assert [path.name for path in own.iterdir()] == [".new-fresh.csv"]
