"""What is refused before any of the application runs: too much, too often, too deep, from a stranger's web page.

Plain ASGI middlewares, because the framework's own would first read a request that is to be refused.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: More than any settings need.
MAX_BODY_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 20
#: Callers that the rate limit remembers; the ones that asked longest ago are forgotten first.
_MAX_REMEMBERED = 10_000


def problem(status: int, text: str, kind: str) -> bytes:
    """The body of a refusal."""
    return json.dumps({"error": {"kind": kind, "message": text}, "status": status}).encode()


async def refuse(send: Send, status: int, text: str, kind: str, headers: Collection[tuple[bytes, bytes]] = ()) -> None:
    """Answer a request that is not read; the connection ends with it."""
    body = problem(status, text, kind)
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


class _TooLargeError(Exception):
    """A body without a stated length became too long."""


class BodyLimit:
    """Refuses bodies that are too large: at once where their length is stated, else where they become so.

    Bodies of JSON are read here as a whole, and refused where they are nested too deep for a parser.

    Args:
        app: What is protected.
        max_upload_bytes: Limit for uploads, whose bodies the application reads in pieces.
        upload_path: Path of uploads.
    """

    def __init__(self, app: ASGIApp, *, max_upload_bytes: int, upload_path: str) -> None:
        self._app = app
        self._max_upload_bytes = max_upload_bytes
        self._upload_path = upload_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"] == self._upload_path
        limit = self._max_upload_bytes if is_upload else MAX_BODY_BYTES
        stated = header(scope, b"content-length")
        too_large = f"the body is too large; at most {limit:,} bytes are allowed here."
        if stated is not None and (not stated.isdigit() or int(stated[:20]) > limit):
            await refuse(send, 413, too_large, "too_large")
            return
        if is_upload:
            # Read in pieces and counted by the application, which knows how much room is left.
            await self._app(scope, receive, send)
            return
        try:
            body = await _read(receive, limit)
        except _TooLargeError:
            await refuse(send, 413, too_large, "too_large")
            return
        if body is None:
            return
        if nesting_depth(body) > MAX_DEPTH:
            await refuse(send, 422, f"the body is nested more than {MAX_DEPTH} levels deep.", "too_deep")
            return
        await self._app(scope, _replayed(body, receive), send)


def nesting_depth(body: bytes) -> int:
    """How deep the brackets of a JSON text are nested, without parsing it; those inside of strings do not count."""
    depth = deepest = 0
    in_string = is_escaped = False
    for byte in body:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif byte == 0x5C:
                is_escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


class RateLimiter:
    """A token bucket per caller: so many requests per second, and so many at once.

    Args:
        rate: Requests per second, > 0.
        burst: Requests at once, >= 1.
        clock: Gives seconds that never go back.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Count a request.

        Returns:
            0 if it is allowed, else seconds to wait until one is.
        """
        with self._lock:
            now = self._clock()
            left, then = self._buckets.pop(name, (float(self._burst), now))
            left = min(self._burst, left + (now - then) * self.rate)
            is_allowed = left >= 1
            self._buckets[name] = (left - 1 if is_allowed else left, now)
            while len(self._buckets) > _MAX_REMEMBERED:
                self._buckets.popitem(last=False)
            return 0.0 if is_allowed else (1 - left) / self.rate


class NoWebPages:
    """Refuses what a browser sends on behalf of a page: no page is served here, so it is a stranger's.

    Where no token is asked for, such a page could otherwise stop searches.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            site = header(scope, b"sec-fetch-site")
            if header(scope, b"origin") is not None or site not in (None, b"none", b"same-origin"):
                await refuse(send, 403, "this API is not for web pages of other origins.", "cross_origin")
                return
        await self._app(scope, receive, send)


class EncodedSlashes:
    """Keeps ``%2F`` in a path what it is, so that a study's name may hold a slash; `decoded` is its other half."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path")
        if scope["type"] == "http" and raw is not None and b"%" in raw:
            kept = raw.replace(b"%25", b"%2525").replace(b"%2F", b"%252F").replace(b"%2f", b"%252F")
            scope = {**scope, "path": unquote_to_bytes(kept).decode("utf-8", "replace")}
        await self._app(scope, receive, send)


def decoded(segment: str) -> str:
    """A segment of a path that `EncodedSlashes` left, in full."""
    return segment.replace("%2F", "/").replace("%25", "%")


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of a name, in lower case; None if there is none."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """A whole body; None if the client is gone."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _TooLargeError
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
