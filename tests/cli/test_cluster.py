from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from autopeft.cli._cluster import IMAGE_USER, SECRETS
from tests.cli.conftest import Cli


def read(folder: Path) -> dict[str, str]:
    return {name: (folder / "secrets" / name).read_text() for name in SECRETS}


def test_init_writes_secrets_for_their_owner_alone_and_none_into_env(cli: Cli, tmp_path: Path) -> None:
    ran = cli("cluster", "init", str(tmp_path), "--format", "json")
    assert ran.code == 0
    found = read(tmp_path)
    assert len(set(found.values())) == len(SECRETS)
    for name, text in found.items():
        assert re.fullmatch(r"[0-9a-f]{64}\n", text), "256 bits"
        status = (tmp_path / "secrets" / name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_uid == (IMAGE_USER if os.geteuid() == 0 else os.geteuid())
        assert text.strip() not in ran.out + ran.err + (tmp_path / ".env").read_text()
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert sorted(json.loads(ran.out)["made"]) == sorted([".env", *(f"secrets/{name}" for name in SECRETS)])
    assert {item.name for item in tmp_path.iterdir()} == {"secrets", ".env"}


def test_called_again_it_changes_nothing_and_fills_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    cli("cluster", "init", str(tmp_path))
    before = read(tmp_path)
    (tmp_path / ".env").write_text("AUTOPEFT_SECRETS=./secrets\nMINE=1\n")
    (tmp_path / "secrets" / "ray_token").unlink()
    ran = cli("cluster", "init", str(tmp_path), "--format", "json")
    assert json.loads(ran.out)["made"] == ["secrets/ray_token"]
    after = read(tmp_path)
    assert {name for name in SECRETS if after[name] != before[name]} == {"ray_token"}
    assert "MINE=1" in (tmp_path / ".env").read_text()


def test_force_renews_the_secrets_and_not_what_the_user_wrote(cli: Cli, tmp_path: Path) -> None:
    cli("cluster", "init", str(tmp_path))
    before = read(tmp_path)
    (tmp_path / ".env").write_text("MINE=1\n")
    cli("cluster", "init", str(tmp_path), "--force")
    assert all(before[name] != text for name, text in read(tmp_path).items())
    assert (tmp_path / ".env").read_text() == "MINE=1\n"


def test_two_at_once_agree_on_the_secrets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autopeft.cli", "cluster", "init", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    made = "".join("".join(item.communicate(timeout=60)) for item in both)
    assert [item.returncode for item in both] == [0, 0]
    for name in SECRETS:
        assert made.count(f"Made secrets/{name}.") == 1


def test_a_folder_that_cannot_be_written_is_exit_code_4(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = cli("cluster", "init", str(tmp_path / "file"))
    assert ran.code == 4
    assert "give another folder" in ran.err


@pytest.fixture
def ready(cli: Cli, tmp_path: Path) -> Path:
    cli("cluster", "init", str(tmp_path))
    (tmp_path / "docker-compose.yml").write_text("services: {}\n")
    return tmp_path


def test_check_passes_what_init_wrote(cli: Cli, ready: Path) -> None:
    ran = cli("cluster", "check", str(ready), "--format", "json")
    assert ran.code == 0
    assert json.loads(ran.out)["is_healthy"]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (
            lambda folder: (folder / ".env").unlink(),
            "does not set AUTOPEFT_SECRETS, AUTOPEFT_UID, AUTOPEFT_GID; run: autopeft cluster init",
        ),
        (lambda folder: (folder / "secrets" / "db_password").unlink(), "db_password cannot be read (No such file"),
        (lambda folder: (folder / "secrets" / "db_password").write_text(""), "db_password is empty"),
        (lambda folder: (folder / "secrets" / "ray_token").chmod(0o644), "chmod 600"),
        (
            lambda folder: (folder / ".env").write_text("AUTOPEFT_SECRETS=x\nAUTOPEFT_UID=7\nAUTOPEFT_GID=7\n"),
            "chown 7",
        ),
        (lambda folder: (folder / "docker-compose.yml").unlink(), "in a clone of autopeft's repository"),
    ],
)
def test_check_says_what_keeps_it_from_starting(cli: Cli, ready: Path, break_it: object, words: str) -> None:
    break_it(ready)  # type: ignore[operator]
    ran = cli("cluster", "check", str(ready), "--format", "json")
    assert ran.code == 4
    details = [item["detail"] for item in json.loads(ran.out)["checks"] if item["health"] == "failed"]
    assert any(words in item for item in details)


def test_the_token_is_for_a_client(cli: Cli, ready: Path, tmp_path: Path) -> None:
    assert cli("cluster", "token", str(ready)).out == (ready / "secrets" / "api_token").read_text()
    ran = cli("cluster", "token", str(tmp_path / "nowhere"))
    assert ran.code == 4
    assert "autopeft cluster init" in ran.err
