from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from autopeft.service._documents import Veil, search_document
from autopeft.store import Submission, SubmissionState

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_own_paths_are_taken_out_of_everything(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    veil = Veil(link)
    for path in (link, tmp_path / "real"):
        assert veil(f"cannot read {path}/uploads/a.csv.") == "cannot read (service)/uploads/a.csv."
        body = veil.json({"source": f"{path}/a"}).body
        assert json.loads(body) == {"schema_version": 1, "source": "(service)/a"}


def test_the_database_is_not_named(tmp_path: Path) -> None:
    veil = Veil(tmp_path / "folder", f"sqlite:///{tmp_path}/folder/a.db")
    assert veil(f"Database   sqlite:///{tmp_path}/folder/a.db") == "Database   (database)"


def test_nothing_served_may_be_run_or_kept(tmp_path: Path) -> None:
    headers = Veil(tmp_path).json({"a": "<script>\udcff"}).headers
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_a_search_says_where_it_stands_in_the_queue() -> None:
    item = Submission(
        study="s",
        owner="ada",
        settings={"task": "t"},
        state=SubmissionState.QUEUED,
        attempts=0,
        service=None,
        process="host:k:1:2",
        message=None,
        created_at=NOON,
        queued_at=NOON,
        started_at=None,
        finished_at=None,
    )
    found = search_document(item, ["r", "s"], is_own=True)
    assert found["queue_position"] == 2
    assert found["created_at"] == "2026-11-20T12:00:00+00:00"
    assert found["started_at"] is None
    assert "process" not in found
    assert search_document(item, ["r"], is_own=False)["queue_position"] is None
