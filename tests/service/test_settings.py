from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.exceptions import UsageError
from autopeft.service import ServiceSettings, is_loopback
from tests.service.conftest import ADA


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "", "127.0.0.1.nip.io")],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org"])
def test_anything_but_loopback_needs_a_token(settings: ServiceSettings, host: str) -> None:
    with pytest.raises(UsageError, match="a token is needed"):
        replace(settings, host=host, tokens=None)
    assert replace(settings, host=host).hosts == ("*",)


def test_loopback_answers_to_its_own_names_alone(settings: ServiceSettings) -> None:
    assert set(settings.hosts) == {"localhost", "127.0.0.1", "[::1]"}
    assert replace(settings, allowed_hosts=("a.example",)).hosts == ("a.example",)


@pytest.mark.parametrize(
    "changes",
    [{"max_active": 0}, {"max_upload_bytes": 0}, {"burst": 0}, {"rate": 0.0}, {"grace_s": -1.0}, {"max_queued": 0}],
)
def test_impossible_limits_are_refused(settings: ServiceSettings, changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(settings, **changes)  # type: ignore[arg-type]


def test_tls_needs_both_files(settings: ServiceSettings, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    with pytest.raises(UsageError, match="both"):
        replace(settings, tls_cert=tmp_path / "cert.pem")
    with pytest.raises(UsageError, match="no such file"):
        replace(settings, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "missing")


def test_neither_database_nor_tokens_are_shown(settings: ServiceSettings) -> None:
    shown = repr(replace(settings, database="postgresql://u:secret@h/d"))
    assert "secret" not in shown
    assert ADA not in shown
