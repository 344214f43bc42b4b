"""Every command that reads says the same of a service as of its database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autopeft.cli._source import ServiceStudies, chosen_server, open_client
from autopeft.exceptions import UsageError
from autopeft.service import ServiceState
from tests.cli.conftest import Cli, _write_study
from tests.cli.remote import URL, connect
from tests.export.studies import full_study, hostile_study, rewarded_study
from tests.service.conftest import drivers, open_service, settings, state  # noqa: F401

READING = [
    ("status", "{}"),
    ("status", "--all"),
    ("trials", "{}"),
    ("trials", "{}", "--kind", "baseline"),
    ("front", "{}"),
    ("show", "{}", "3"),
    ("show", "{}", "best"),
    ("report", "{}", "--format", "md"),
]


@pytest.mark.parametrize("words", READING, ids=[" ".join(words) for words in READING])
@pytest.mark.parametrize("way", ["human", "json"])
def test_a_service_shows_what_its_database_shows(
    cli: Cli,
    state: ServiceState,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    way: str,
) -> None:
    study = full_study()
    _write_study(state.store, study)
    command = [word.format(study.spec.name) for word in words]
    if words[0] != "report":
        command += ["--format", way]
    local = cli(*command, "--db", state.settings.database)
    connect(monkeypatch, state)
    remote = cli(*command)
    assert (remote.code, local.code) == (0, 0), remote.err

    def plain(text: str) -> list[str]:
        # Where the study is, when that was written, and lines as long as that.
        where = (state.store.url, URL, "(database)", "ritten", "\u2500")
        return [line for line in text.splitlines() if not any(item in line for item in where)]

    assert plain(remote.out) == plain(local.out)
    assert len(plain(remote.out)) >= 3


def test_studies_are_found_by_their_beginning_and_pages_are_joined(
    state: ServiceState,  # noqa: F811
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _write_study(state.store, full_study())
    for i in range(5):
        _write_study(state.store, hostile_study(f"other {i}/x"))
    connect(monkeypatch, state)
    monkeypatch.setattr("autopeft.cli._source._PAGE", 2)
    name = full_study().spec.name
    found = json.loads(cli("status", name[:4], "--format", "json").out)
    assert found["study"] == name
    assert found["database"] == URL
    assert len(json.loads(cli("status", "--all", "--format", "json").out)["studies"]) == 6
    assert json.loads(cli("front", "other 3", "--format", "json").out)["study"] == "other 3/x"
    missing = cli("front", "nothing")
    assert missing.code == 5
    assert URL in missing.err


def test_a_study_comes_whole(state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    study = rewarded_study()
    _write_study(state.store, study)
    connect(monkeypatch, state)
    with open_client(URL, None, None) as client:
        assert ServiceStudies(client).load_study(study.spec.name) == state.store.load_study(study.spec.name)
        (summary,) = ServiceStudies(client).list_studies()
    assert summary == state.store.list_studies()[0]


def test_a_wrong_token_is_said_with_the_way_out(cli: Cli, state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    connect(monkeypatch, state, token="wrong-0123456789abcdef")
    ran = cli("front")
    assert ran.code == 4
    assert "does not know the token" in ran.err
    assert "wrong-0123456789abcdef" not in ran.err


@pytest.mark.parametrize(
    ("server", "db", "environment", "expected"),
    [
        (None, None, {}, None),
        (None, "a.db", {"AUTOPEFT_DB": "a.db"}, None),
        ("s", None, {"AUTOPEFT_SERVER": "s"}, "s"),
        ("s", "a.db", {"AUTOPEFT_SERVER": "s", "AUTOPEFT_DB": "a.db"}, "s"),
        ("s", "b.db", {"AUTOPEFT_SERVER": "s", "AUTOPEFT_DB": "a.db"}, None),
        ("t", "a.db", {"AUTOPEFT_SERVER": "s", "AUTOPEFT_DB": "a.db"}, "t"),
    ],
)
def test_flags_win_over_the_environment(
    server: str | None, db: str | None, environment: dict[str, str], expected: str | None
) -> None:
    assert chosen_server(server, db, environment) == expected


def test_both_as_flags_exclude_each_other(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        chosen_server("s", "a.db", {})
    assert cli("front", "--server", URL, "--db", str(tmp_path / "a.db")).code == 2
