"""The application: routes behind the door, and what happens when it starts and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response

import autopeft
from autopeft.service._artifacts import artifact_routes
from autopeft.service._documents import SAFE_HEADERS
from autopeft.service._errors import add_error_handlers
from autopeft.service._guard import METRICS_PATH, Guard
from autopeft.service._limits import BodyLimit, EncodedSlashes, NoWebPages, RateLimiter
from autopeft.service._metrics import MEDIA_TYPE, Metrics
from autopeft.service._recorder import Recorder
from autopeft.service._searches import UPLOAD_PATH, search_routes
from autopeft.service._state import ServiceState
from autopeft.service._studies import study_routes

_DESCRIPTION = "Submit, follow, stop and resume searches for PEFT configurations, and read their results."


def create_app(state: ServiceState) -> FastAPI:
    """The ASGI application of a service; its scheduler runs as long as the application does.

    Args:
        state: From `open_state`.
    """
    settings = state.settings
    metrics = Metrics(state.totals, state.store, state.submissions)
    guard = Middleware(
        Guard,
        tokens=settings.tokens,
        limiter=RateLimiter(settings.rate, settings.burst),
        has_open_metrics=settings.is_local,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        state.scheduler.start()
        yield
        await run_in_threadpool(state.close)

    app = FastAPI(
        title="autopeft",
        version=autopeft.__version__,
        description=_DESCRIPTION,
        # The pages for people would load their scripts from somewhere else.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        dependencies=[Depends(_remember_route)],
        middleware=[
            Middleware(Recorder, metrics=metrics),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts), www_redirect=False),
            Middleware(NoWebPages),
            Middleware(EncodedSlashes),
            guard,
            Middleware(BodyLimit, max_upload_bytes=settings.max_upload_bytes, upload_path=UPLOAD_PATH),
            Middleware(GZipMiddleware, minimum_size=2000),
        ],
    )
    add_error_handlers(app, state.veil)
    app.include_router(search_routes(state))
    app.include_router(study_routes(state))
    app.include_router(artifact_routes(state.store, state.artifacts, state.veil))
    _add_health(app, state)
    _add_metrics(app, metrics)
    _describe_tokens(app)
    return app


def _describe_tokens(app: FastAPI) -> None:
    """Say in the API's description how to authenticate; the guard before the application is what asks."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        document["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_health(app: FastAPI, state: ServiceState) -> None:
    """Whether the process answers, and whether it can do its work; neither says more."""

    @app.get("/healthz", tags=["health"], summary="Whether the process answers")
    def healthz() -> Response:
        return state.veil.json({"status": "ok"})

    @app.get("/readyz", tags=["health"], summary="Whether the database answers and the scheduler runs")
    def readyz() -> Response:
        state.submissions.counts()
        is_ready = state.scheduler.is_alive
        return state.veil.json({"status": "ok" if is_ready else "waiting"}, 200 if is_ready else 503)


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    @app.get(METRICS_PATH, tags=["health"], summary="Numbers for Prometheus; on loopback no token is asked for")
    def read_metrics() -> Response:
        return Response(metrics.text(), media_type=MEDIA_TYPE, headers=SAFE_HEADERS)


def _remember_route(request: Request) -> None:
    """Note which route answers, for the recorder: a path itself may be anything, and names studies."""
    route = request.scope.get("route")
    request.state.route = getattr(route, "path", "other")
