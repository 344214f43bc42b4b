"""The door: who asks, how often, and whether they may."""

from __future__ import annotations

import math
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from autopeft.service._limits import RateLimiter, header, refuse
from autopeft.service._tokens import ANYBODY, Caller, Role, TokenBook

#: Answer without a token and tell nothing of what is stored.
HEALTH_PATHS: Final = ("/healthz", "/readyz")
METRICS_PATH: Final = "/metrics"
_READING = ("GET", "HEAD")
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


class Guard:
    """Finds out who asks, and refuses what they may not do; the application finds the caller in the request's state.

    Args:
        app: What is protected.
        tokens: Who may ask; None for everybody, which is for loopback alone.
        limiter: How often one caller may ask; an address without a token is a caller as well.
        has_open_metrics: Whether metrics need no token, unless the request came through a proxy.
    """

    def __init__(self, app: ASGIApp, *, tokens: TokenBook | None, limiter: RateLimiter, has_open_metrics: bool) -> None:
        self._app = app
        self._tokens = tokens
        self._limiter = limiter
        self._has_open_metrics = has_open_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # There are none, and what follows would not guard them.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        caller = self._caller(scope)
        wait_s = self._limiter.take(f"name {caller.name}" if caller else f"address {_address(scope)}")
        if wait_s > 0:
            after = (b"retry-after", str(math.ceil(wait_s)).encode())
            text = f"too many requests; at most {self._limiter.rate:g} per second are allowed."
            await refuse(send, 429, text, "too_many_requests", [after])
        elif caller is None and not self._is_open(scope):
            text = "a valid token is needed: send the header `Authorization: Bearer TOKEN`."
            await refuse(send, 401, text, "unauthorized", [(b"www-authenticate", b'Bearer realm="autopeft"')])
        elif caller is not None and caller.role < Role.WRITE and scope["method"] not in _READING:
            await refuse(send, 403, f"the token {caller.name!r} may only read.", "forbidden")
        else:
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller | None:
        if self._tokens is None:
            return ANYBODY
        given = [value for key, value in scope["headers"] if key == b"authorization"]
        if len(given) != 1:
            return None
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        return self._tokens.find(token.strip()) if scheme.lower() == "bearer" else None

    def _is_open(self, scope: Scope) -> bool:
        # Behind a proxy on this machine, every stranger comes from loopback.
        is_direct = all(header(scope, name) is None for name in _FORWARDED)
        return self._has_open_metrics and is_direct and scope["path"] == METRICS_PATH


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"
