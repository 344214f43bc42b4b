from __future__ import annotations

import logging
from pathlib import Path

import pytest

from autopeft.store import StudyReader, open_store
from dashboard.views import _ahead, _cache, insight
from dashboard.views._study import Open
from tests.dashboard.studies import draft, full, lora, params, run, spec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def opened(url: str) -> Open:
    reader = StudyReader(url)
    overviews = tuple(reader.overviews())
    return Open(url=url, reader=reader, overview=overviews[0], others=overviews)


def test_what_was_looked_up_ahead_is_not_asked_for_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full(url)
    _ahead.start_looking_ahead(url).join(60)
    found = opened(url)

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the database was asked again")

    for name in ("trials", "values", "notes", "params", "configurations", "curves"):
        monkeypatch.setattr(StudyReader, name, asked)
    assert len(found.frame()) == 15
    assert found.result.recommended == 5
    about = (url, found.name, found.overview.token)
    assert len(_cache.growth(*about, found.spec))
    insight.look_ahead(found)

    # What a trial changes is new to everybody.
    monkeypatch.undo()
    with open_store(url) as store:
        run(store, draft(lora(2, 0.005), 700, params=params(2)), 0.72)
    assert len(opened(url).frame()) == 16


def test_looking_ahead_at_nothing_is_no_matter(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _ahead.look_ahead(url)
        _ahead.look_ahead("nonsense://user:secret@host/x")
        (tmp_path / "no.db").write_text("no database " * 100)
        _ahead.look_ahead(f"sqlite:///{tmp_path / 'no.db'}")
        with open_store(url) as store:
            store.create_study(spec())
        _ahead.look_ahead(url)
    assert caplog.records == []
