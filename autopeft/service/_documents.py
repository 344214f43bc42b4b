"""What the service says of a submitted search, and how anything it says leaves it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response

from autopeft.export import SCHEMA_VERSION
from autopeft.store import Submission

#: Nothing that is served may be taken for a page, kept by a proxy, or run by a browser.
SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "Referrer-Policy": "no-referrer",
}


class Veil:
    """Takes this machine's own paths out of what is served: they say where things are, and whose.

    Args:
        folder: The service's own folder.
        database: The database's URL as it is shown.
    """

    def __init__(self, folder: Path, database: str = "") -> None:
        paths = sorted({str(item) for item in (folder, folder.absolute(), folder.resolve())}, key=len, reverse=True)
        self._words = [*([(database, "(database)")] if database else []), *((path, "(service)") for path in paths)]

    def __call__(self, text: str) -> str:
        for path, shown in self._words:
            text = text.replace(path, shown)
        return text

    def json(
        self, document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """A JSON document with its schema version, as a response."""
        whole = {"schema_version": SCHEMA_VERSION, **document}
        text = self(json.dumps(whole, ensure_ascii=False, allow_nan=False))
        return Response(
            text.encode("utf-8", "backslashreplace"),
            status,
            media_type="application/json",
            headers={**SAFE_HEADERS, **(headers or {})},
        )


def search_document(item: Submission, queue: Sequence[str], *, is_own: bool) -> dict[str, Any]:
    """A submitted search.

    Args:
        item: The submission.
        queue: Names of the studies that wait, in the order of their turns.
        is_own: Whether the caller may stop and resume it.
    """
    return {
        "study": item.study,
        "owner": item.owner,
        "state": item.state.value,
        "message": item.message,
        "queue_position": queue.index(item.study) + 1 if item.study in queue else None,
        "settings": dict(item.settings),
        "is_own": is_own,
        "created_at": _time(item.created_at),
        "queued_at": _time(item.queued_at),
        "started_at": _time(item.started_at),
        "finished_at": _time(item.finished_at),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
