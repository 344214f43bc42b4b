from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from autopeft.exceptions import UsageError
from autopeft.service import _check_upload
from autopeft.service._check_upload import check
from autopeft.store import archive_study
from tests.export.studies import full_study


def run(path: Path, setup: str = "pass") -> subprocess.CompletedProcess[str]:
    code = f"import sys; from autopeft.service import _check_upload as c; {setup}; sys.exit(c.main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, str(path), path.name], capture_output=True, text=True)


def test_tables_spaces_and_studies_pass(tmp_path: Path) -> None:
    import json

    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    (tmp_path / "a.yaml").write_text((Path(__file__).parents[2] / "search_spaces" / "default.yaml").read_text())
    (tmp_path / "a.json").write_text(json.dumps(archive_study(full_study())))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.yaml", "a.json", "a.parquet"):
        check(tmp_path / name, name)


def test_a_parquet_file_that_unpacks_to_gigabytes_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a hundred thousand equal texts are a small file, and what its metadata says they unpack to is refused."""
    path = tmp_path / "bomb.parquet"
    text = "x" * 1000
    pyarrow.parquet.write_table(
        pyarrow.table({"text": [text] * 100_000}), path, compression="zstd", use_dictionary=False
    )
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(_check_upload, "MAX_UNPACKED_BYTES", 10**7)
    with pytest.raises(UsageError, match="unpacks to 100,"):
        check(path, path.name)


def test_memory_and_time_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "word,1\n" * 200_000)
    assert run(path).returncode == 0
    starved = run(path, "c.MAX_MEMORY_BYTES = 120 * 2**20")
    assert starved.returncode not in (0, 2)
    hurried = run(path, "c.MAX_CPU_S = 1; c.check = lambda *_: exec('while True: pass')")
    assert hurried.returncode < 0


def test_what_is_wrong_is_said_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    done = run(tmp_path / "a.csv")
    assert done.returncode == 2
    assert "is empty" in done.stdout
