"""Expressions that differ by database, on SQLite; `test_reader` asks both databases the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table, Text, create_engine, delete, insert, literal, select, true

from autopeft.store._columns import json_keys, json_number, json_part, seconds_between
from autopeft.store._types import UtcDateTime

_TABLE = Table("t", MetaData(), Column("text", Text))


_ENGINE = create_engine("sqlite://")
_TABLE.metadata.create_all(_ENGINE)


def evaluate(text: str, expression: object) -> object:
    with _ENGINE.begin() as connection:
        connection.execute(delete(_TABLE))
        connection.execute(insert(_TABLE).values(text=text))
        return connection.execute(select(expression).select_from(_TABLE)).scalar_one()  # type: ignore[call-overload]


_NAMES = st.text("abcdefghijklmnopqrstuvwxyz_.@ /+-", min_size=1, max_size=10)


@given(st.dictionaries(_NAMES, st.floats(allow_nan=False, allow_infinity=False)), _NAMES)
def test_a_number_is_what_python_reads(values: dict[str, float], name: str) -> None:
    """Oracle: the json module."""
    found = evaluate(json.dumps(values), json_number(_TABLE.c.text, name, is_sqlite=True))
    expected = values.get(name)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-14, abs=1e-300))


@pytest.mark.parametrize("name", ['a"b', "", "x'; DROP TABLE trials; --", "a\\b", "x" * 300])
def test_a_name_that_no_metric_has_is_never_found(name: str) -> None:
    assert evaluate(json.dumps({name: 1.0}), json_number(_TABLE.c.text, name, is_sqlite=True)) is None


def test_parts_come_as_json() -> None:
    text = json.dumps({"a": {"b": [1, "x"], "c": "text", "d": None}})
    for path, expected in ((("a", "b"), [1, "x"]), (("a", "c"), "text"), (("a",), json.loads(text)["a"])):
        found = evaluate(text, json_part(_TABLE.c.text, *path, is_sqlite=True))
        assert json.loads(str(found)) == expected
    assert evaluate(text, json_part(_TABLE.c.text, "a", "z", is_sqlite=True)) is None


def test_keys() -> None:
    with _ENGINE.begin() as connection:
        connection.execute(delete(_TABLE))
        connection.execute(insert(_TABLE), [{"text": '{"a": 1, "b": 2}'}, {"text": "{}"}, {"text": '{"b": 1}'}])
        keys = json_keys(_TABLE.c.text, is_sqlite=True)
        statement = select(keys.c.key).select_from(_TABLE).join(keys, true())
        assert sorted(connection.execute(statement).scalars()) == ["a", "b", "b"]


def test_seconds() -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    ends = [literal(start + timedelta(seconds=s), UtcDateTime()) for s in (0, 12.5)]
    found = evaluate("", seconds_between(ends[0], ends[1], is_sqlite=True))
    assert found == pytest.approx(12.5, abs=1e-3)
