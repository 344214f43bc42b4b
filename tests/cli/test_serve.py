from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopeft import service
from autopeft.service import ServiceSettings
from tests.cli.conftest import Cli

TOKEN = "0123456789abcdef"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServiceSettings]:
    """What would be served."""
    found: list[ServiceSettings] = []

    def serve(settings: ServiceSettings, *, on_ready: Callable[[], None]) -> None:
        found.append(settings)
        on_ready()

    monkeypatch.setattr(service, "serve", serve, raising=False)
    return found


def test_without_a_token_nothing_is_served(cli: Cli, served: list[ServiceSettings]) -> None:
    done = cli("serve")
    assert done.code == 2
    assert "--token-file" in done.err
    assert "--no-token" in done.err
    assert served == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_no_token_goes_on_loopback_alone(cli: Cli, served: list[ServiceSettings], host: str) -> None:
    done = cli("serve", "--no-token", "--host", host)
    assert done.code == 2
    assert "a token is needed" in done.err
    assert cli("serve", "--no-token").code == 0
    assert served[0].tokens is None


def test_flags_become_settings(
    cli: Cli, served: list[ServiceSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokens").write_text(f"ada {TOKEN}\n")
    monkeypatch.setenv("AUTOPEFT_API_TOKEN", "the-environments-own-token")
    words: list[Any] = ["--db", tmp_path / "a.db", "--token-file", tmp_path / "tokens", "--host", "0.0.0.0"]
    words += ["--executor", "ray --address auto", "--max-active", 3, "--max-upload-mib", 2, "--rate", 4]
    words += ["--allowed-host", "a.example", "--data-dir", tmp_path, "--folder", tmp_path / "f", "--allow-code"]
    done = cli("serve", *map(str, words))
    assert done.code == 0, done.err
    (found,) = served
    assert found.database == f"sqlite:///{tmp_path}/a.db"
    assert found.tokens is not None
    assert found.tokens.names == ("ada",)
    assert found.executor == ("--executor", "ray", "--address", "auto")
    assert (found.max_active, found.max_upload_bytes, found.burst) == (3, 2 * 2**20, 12)
    assert (found.hosts, found.data_dir, found.allow_code) == (("a.example",), tmp_path, True)
    assert "unencrypted" in done.err
    assert TOKEN not in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("workers --trial-timeout 9s", "--trial-timeout goes with --executor ray, but the executor is workers"),
        ("local --memory-limit 4G", "--memory-limit goes with --executor ray, but the executor is local"),
        ("ray --memory-limit lots", "a size is written like 4G or 512M, but got 'lots'"),
        ("ray --adress auto", "No such option: --adress"),
        ("ray auto", "unexpected 'auto'"),
        ("ray --address", "requires an argument"),
    ],
)
def test_words_that_every_driver_would_refuse_are_refused_at_once(
    cli: Cli, served: list[ServiceSettings], words: str, message: str
) -> None:
    done = cli("serve", "--no-token", "--executor", words)
    assert done.code == 2
    assert f"--executor '{words}': " in done.err
    assert message in done.err
    assert served == []
    assert cli("serve", "--no-token", "--executor", "ray --address auto --trial-timeout 9s --memory-limit 4G").code == 0
    assert served[0].executor[-4:] == ("--trial-timeout", "9s", "--memory-limit", "4G")


def test_serving_is_said_of_a_database_that_was_found_alone(cli: Cli) -> None:
    done = cli("serve", "--no-token", "--db", "postgresql://u@127.0.0.1:1/x")
    assert done.code == 4
    assert done.err.count("error:") == 1
    assert "Serving" not in done.err


def test_local_is_no_word_for_drivers(cli: Cli, served: list[ServiceSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPEFT_API_TOKEN", TOKEN)
    done = cli("serve")
    assert served[0].executor == ()
    assert done.err == "Serving http://127.0.0.1:8500; Ctrl-C ends it.\n"
    assert cli("serve", "--executor", " ").code == 2
    unknown = cli("serve", "--executor", "kubernetes --address auto")
    assert unknown.code == 2
    assert "local, workers, ray, but got 'kubernetes'" in unknown.err
