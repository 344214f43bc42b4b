"""Every answered request: one log record, and a count."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autopeft.service._guard import HEALTH_PATHS
from autopeft.service._metrics import Metrics

_log = logging.getLogger("autopeft.service.access")


class Recorder:
    """Logs and counts answers. Neither headers nor query strings are logged: they may hold what is secret.

    Args:
        app: What answers.
        metrics: Where answers are counted.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # The router writes the route into the scope that it is given; this one is handed down as it is.
        state = scope.setdefault("state", {})
        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - start
            route = state.get("route", "other")
            self._metrics.count_request(_method(scope), route, status, seconds)
            caller = state.get("caller")
            level = logging.DEBUG if scope["path"] in HEALTH_PATHS and status < 500 else logging.INFO
            facts = {
                "method": _method(scope),
                "path": scope["path"][:500],
                "status": status,
                "seconds": round(seconds, 4),
                "caller": None if caller is None else caller.name,
                "client": (scope.get("client") or ("unknown",))[0],
            }
            _log.log(level, "%s %s %d", facts["method"], _plain(facts["path"]), status, extra=facts)


def _method(scope: Scope) -> str:
    """A known method: anybody may send any word, and each would be a label."""
    method = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "OTHER"


def _plain(text: object) -> str:
    """A path without what a terminal or a log would obey."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(text))
