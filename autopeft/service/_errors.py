"""From what is raised to what is answered: one shape for every error, and nothing of the inside in it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from autopeft.exceptions import (
    AutoPeftError,
    MachineError,
    NotAllowedError,
    NotFoundError,
    SubmissionConflictError,
    TrialConflictError,
    UsageError,
)
from autopeft.service._documents import SAFE_HEADERS, Veil
from autopeft.service._limits import problem

#: The first that fits decides.
STATUSES: Final[tuple[tuple[type[AutoPeftError], int], ...]] = (
    (NotAllowedError, 403),
    (UsageError, 422),
    (NotFoundError, 404),
    (SubmissionConflictError, 409),
    (TrialConflictError, 409),
    (MachineError, 503),
    (AutoPeftError, 500),
)
_MAX_MESSAGE: Final = 4000

_log = logging.getLogger(__name__)
Handler = Callable[[Request, Any], Awaitable[Response]]


def add_error_handlers(app: FastAPI, veil: Veil) -> None:
    """Make an application answer every error in the same shape.

    Args:
        app: The application.
        veil: Takes paths out of messages.
    """

    async def own(request: Request, error: AutoPeftError) -> Response:
        status = next(code for kind, code in STATUSES if isinstance(error, kind))
        if status >= 500:
            _log.warning("%s %s: %s", request.method, request.url.path, error)
        return error_response(status, veil(str(error)), type(error).__name__)

    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        problems = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        return error_response(422, "; ".join(problems[:10]), "invalid_request")

    async def http(_request: Request, error: HTTPException) -> Response:
        return error_response(error.status_code, str(error.detail), "http", error.headers)

    async def unforeseen(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(500, "internal error; the service's log says more.", "internal")

    app.add_exception_handler(AutoPeftError, own)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, http)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, unforeseen)


def error_response(status: int, text: str, kind: str, headers: Any = None) -> Response:
    """An error as a response; HEAD gets no body from the server."""
    return Response(
        problem(status, text[:_MAX_MESSAGE], kind),
        status,
        media_type="application/json",
        headers={**SAFE_HEADERS, **dict(headers or {})},
    )
