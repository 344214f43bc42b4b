"""Names that are HTML, SQL, terminal commands or paths: everywhere they are words and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from autopeft.export import render_report
from autopeft.store import SqlStore, StudyReader
from dashboard.queries import filtered, studies_frame, study_facts
from tests.cli.conftest import Cli, _write_study, cli  # noqa: F401
from tests.export.studies import full_study, hostile_study

NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></script><svg onload=alert(1)>",
    "'; DROP TABLE studies; --",
    "' OR '1'='1",
    '"; DELETE FROM trials; --',
    "%' UNION SELECT value FROM study_attributes --",
    "../../../etc/passwd",
    "[red]markup[/red]",
    "\x1b[2J\x1b]0;title\x07",
    "a\nb\r\nSet-Cookie: x",
    "{{7*7}} ${7*7} #{7*7}",
    "=HYPERLINK(1)",
    "名\u202e\u0000",
]


class Elements(HTMLParser):
    """The elements and event handlers of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers |= {name for name, _ in attrs if name.startswith("on")}


@pytest.fixture(params=NAMES, ids=[repr(name)[:40] for name in NAMES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def db(tmp_path: Path, name: str) -> str:
    """A database with an innocent study, and one whose every text is the name."""
    path = tmp_path / "studies.db"
    with SqlStore(path) as store:
        _write_study(store, full_study())
        hostile = hostile_study(name)
        _write_study(
            store, replace(hostile, spec=replace(hostile.spec, backbone={"name": name, "parameters": 100_000}))
        )
    return str(path)


def test_the_command_line_shows_a_name_and_obeys_none(cli: Cli, db: str, name: str) -> None:  # noqa: F811
    for words in (["status"], ["trials"], ["front"], ["show"], ["report", "--format", "md"]):
        ran = cli(words[0], name, *words[1:], "--db", db)
        assert ran.code == 0, ran.err
        assert "\x1b" not in ran.out + ran.err
    assert cli("status", "--all", "--db", db).code == 0
    found = json.loads(cli("status", name, "--format", "json", "--db", db).out)
    assert found["study"] == name
    # A name is never a beginning, a pattern or a statement that fits another study.
    assert cli("front", name + "x", "--db", db).code == 5
    assert json.loads(cli("status", full_study().spec.name, "--format", "json", "--db", db).out)["counts"]["search"]


def test_a_report_has_no_element_that_a_name_brought(db: str, name: str) -> None:
    with SqlStore(db) as store:
        page = render_report(store.load_study(name), "html")
        innocent = render_report(store.load_study(full_study().spec.name), "html")
    elements, expected = Elements(), Elements()
    elements.feed(page)
    expected.feed(innocent)
    assert elements.tags <= expected.tags
    assert elements.handlers == set()


def test_the_dashboard_reads_a_name_as_data(db: str, name: str) -> None:
    with StudyReader(db) as reader:
        overviews = reader.overviews()
        frame = studies_frame(overviews, lambda item: study_facts(reader, item))
        assert set(frame["study"]) == {name, full_study().spec.name}
        assert reader.overview(name).n_trials_total == 3
        assert len(reader.trials(name)) == 3
        assert reader.values(name, [name]) == [(number, None, None, 0, None) for number in (0, 2)]
        assert reader.notes(name, [0, 1, 2], "x") == {}
        assert reader.study(name).spec.name == name
        for text in name.split():
            assert name in filtered(frame, text=text)["study"].tolist()


def test_nothing_was_dropped(cli: Cli, db: str, name: str) -> None:  # noqa: F811
    """After every way in, the innocent study is whole."""
    cli("front", name, "--db", db)
    with SqlStore(db) as store:
        assert [item.name for item in store.list_studies()] == [full_study().spec.name, name]
        assert len(store.load_study(full_study().spec.name).trials) == len(full_study().trials)
