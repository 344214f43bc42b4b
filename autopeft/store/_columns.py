"""SQL expressions that SQLite and PostgreSQL write differently: values inside JSON texts, and spans of time."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement, Double, TableValuedAlias, Text, cast, func, literal, null
from sqlalchemy.dialects.postgresql import JSON

#: Names that can stand in a path into JSON on both databases; the task's metrics, costs and rewards are such.
_PLAIN_NAME = re.compile(r"[\w.@ /+-]{1,200}")


def json_number(column: Any, name: str, *, is_sqlite: bool) -> ColumnElement[Any]:
    """The number under a key of a JSON object kept as text; NULL where there is none.

    Args:
        column: Column with the text.
        name: The key; one that no metric or cost can have has no value anywhere.
        is_sqlite: Whether SQLite is asked, else PostgreSQL.
    """
    if not _PLAIN_NAME.fullmatch(name):
        return cast(null(), Double)
    if is_sqlite:
        return func.json_extract(column, literal(f'$."{name}"'))
    return cast(func.json_extract_path_text(cast(column, JSON), literal(name)), Double)


def json_part(column: Any, *path: str, is_sqlite: bool) -> ColumnElement[Any]:
    """What stands at a path into a JSON object kept as text, as JSON text; NULL where there is nothing."""
    if is_sqlite:
        steps = "".join(f'."{name}"' for name in path)
        found = func.json_extract(column, literal(f"${steps}"))
        # A missing value would become the text "null".
        return func.nullif(func.json_quote(found), "null")
    return cast(func.json_extract_path(cast(column, JSON), *map(literal, path)), Text)


def json_keys(column: Any, *, is_sqlite: bool) -> TableValuedAlias:
    """The keys of a JSON object kept as text, one row each: a table with the column ``key``, to be joined on true."""
    if is_sqlite:
        return func.json_each(column).table_valued("key")
    return func.json_object_keys(cast(column, JSON)).table_valued("key").render_derived()


def seconds_between(start: Any, end: Any, *, is_sqlite: bool) -> ColumnElement[Any]:
    """Seconds from one moment to another; NULL where one is missing."""
    if is_sqlite:
        return (func.julianday(end) - func.julianday(start)) * 86400.0
    return cast(func.extract("epoch", end - start), Double)
