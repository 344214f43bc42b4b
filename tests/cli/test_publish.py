from __future__ import annotations

from pathlib import Path

import pytest

from autopeft.artifacts import open_artifacts
from autopeft.cli._publish import publish_result, require_place
from autopeft.exceptions import UsageError
from tests.cli.conftest import Cli, Save
from tests.export.studies import full_study


def test_a_report_is_published_under_its_study(cli: Cli, save: Save, tmp_path: Path) -> None:
    study = full_study()
    db = save(study)
    output = tmp_path / "report.html"
    words = ("--publish", "--artifacts", str(tmp_path / "artifacts"), "--db", db)
    ran = cli("report", study.spec.name, "-o", str(output), *words)
    assert ran.code == 0, ran.err
    place = open_artifacts(tmp_path / "artifacts")
    (name,) = place.list_named("studies")
    assert name.endswith("/reports/report.html")
    assert place.read_named(name) == output.read_bytes()
    assert f"Published {name} in {place.url}." in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "report.html"), "--publish needs a place; give --artifacts PLACE or set AUTOPEFT_ARTIFACTS"),
        (("--artifacts", "here"), "--publish stores a file; name it with -o"),
        (("-o", "report.html", "--artifacts", "ftp://host/x"), "'ftp' is not supported"),
    ],
)
def test_what_cannot_be_published_is_told_before_anything_is_done(
    cli: Cli, save: Save, words: tuple[str, ...], message: str
) -> None:
    ran = cli("report", "--publish", "--db", save(full_study()), *words)
    assert ran.code == 2
    assert message in ran.err


def test_a_folder_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adapter").mkdir()
    for name in ("a", "b"):
        (tmp_path / "adapter" / name).write_text(name)
    place = require_place(str(tmp_path / "artifacts"))
    publish_result(place, "s", "adapters", tmp_path / "adapter")
    assert "Published 2 files below studies/s/adapters/adapter in" in capsys.readouterr().err


def test_no_place_is_a_wrong_usage() -> None:
    with pytest.raises(UsageError, match="AUTOPEFT_ARTIFACTS"):
        require_place(None)
