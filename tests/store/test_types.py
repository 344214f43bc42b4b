"""Column types: ordinary text stays readable, and moments need a time zone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from autopeft.store._types import ExactText, UtcDateTime

SQLITE, POSTGRES = sqlite.dialect(), postgresql.dialect()


@pytest.mark.parametrize("text", ["", "plain", 'Größe 🙂 "quoted" \\u0000 \n'])
def test_ordinary_text_is_stored_as_it_is(text: str) -> None:
    assert ExactText().process_bind_param(text, SQLITE) == text


@pytest.mark.parametrize("text", ["a\x00b", "caf\udce9", "\ufdd0", "\ufdd0plain", "\ufdd0\x00"])
def test_what_databases_refuse_is_escaped_and_comes_back(text: str) -> None:
    stored = ExactText().process_bind_param(text, SQLITE)
    assert stored is not None
    assert "\x00" not in stored
    stored.encode()  # no lone surrogates
    assert ExactText().process_result_value(stored, SQLITE) == text


def test_moments_are_utc() -> None:
    moment = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    for dialect in (SQLITE, POSTGRES):
        stored = UtcDateTime().process_bind_param(moment, dialect)
        loaded = UtcDateTime().process_result_value(stored, dialect)
        assert loaded == moment
        assert loaded is not None
        assert loaded.utcoffset() == timedelta(0)
    with pytest.raises(ValueError, match="needs a time zone"):
        UtcDateTime().process_bind_param(datetime(2025, 6, 1), SQLITE)


def test_missing_stays_missing() -> None:
    for kind in (ExactText(), UtcDateTime()):
        assert kind.process_bind_param(None, SQLITE) is None
        assert kind.process_result_value(None, SQLITE) is None
