"""Running the application: uvicorn with safe settings."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn

from autopeft.service._app import create_app
from autopeft.service._settings import ServiceSettings
from autopeft.service._state import open_state

_MAX_CONNECTIONS = 200


def serve(settings: ServiceSettings, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal ends it.

    Args:
        settings: What the operator decided.
        on_ready: Called when the database has been found usable, before the first request is taken.

    Raises:
        StoreError: If the database cannot be used.
    """
    app = create_app(open_state(settings))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        # Whoever connects is who asks: headers that say otherwise are anybody's to send.
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=10,
        h11_max_incomplete_event_size=16 * 1024,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    on_ready()
    uvicorn.Server(config).run()
