"""The service: searches submitted over HTTP, queued fairly, driven by child processes. Needs the extra ``serve``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autopeft.service._app import create_app
    from autopeft.service._run import serve
    from autopeft.service._settings import ServiceSettings, is_loopback
    from autopeft.service._state import ServiceState, open_state
    from autopeft.service._tokens import TokenBook, find_tokens, read_tokens

#: What is named here is loaded when it is asked for: the command line and its client need no web framework.
_PLACES = {
    "ServiceSettings": "_settings",
    "ServiceState": "_state",
    "TokenBook": "_tokens",
    "create_app": "_app",
    "find_tokens": "_tokens",
    "is_loopback": "_settings",
    "open_state": "_state",
    "read_tokens": "_tokens",
    "serve": "_run",
}

__all__ = [
    "ServiceSettings",
    "ServiceState",
    "TokenBook",
    "create_app",
    "find_tokens",
    "is_loopback",
    "open_state",
    "read_tokens",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
