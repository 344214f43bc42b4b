"""Column types that keep what they are given, on every database."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from sqlalchemy import DateTime, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

#: Stands in front of escaped text; a Unicode noncharacter, so no real text starts with it.
_MARK = "\ufdd0"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class ExactText(TypeDecorator[str]):
    """Text of any length and content.

    Databases refuse NUL characters (PostgreSQL) and lone surrogates (both), and a traceback may contain either, for
    example in the name of a file. Such text is stored as JSON behind a mark, all other text as it is.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is not None and (value.startswith(_MARK) or _UNSTORABLE.search(value)):
            return _MARK + json.dumps(value)
        return value

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is not None and value.startswith(_MARK):
            return str(json.loads(value[len(_MARK) :]))
        return value


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, to the microsecond, in UTC: SQLite would forget the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a stored moment needs a time zone, but got {value!r}.")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
