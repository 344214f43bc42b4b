"""A service in this process, and a client of the command line that talks to it without a network."""

from __future__ import annotations

from typing import Any

import pytest

from autopeft.cli import _client
from autopeft.service import ServiceState
from tests.service.conftest import ADA, client_of

URL = "http://127.0.0.1:8500"


def connect(monkeypatch: pytest.MonkeyPatch, state: ServiceState, token: str = ADA) -> None:
    """Make every client of the command line talk to this service, as if AUTOPEFT_SERVER were set."""
    own = _client.ServiceClient

    def build(url: str, given: str | None, **options: Any) -> _client.ServiceClient:
        return own(url, given, **{**options, "transport": client_of(state)._transport})

    monkeypatch.setattr(_client, "ServiceClient", build)
    monkeypatch.setenv("AUTOPEFT_SERVER", URL)
    monkeypatch.setenv("AUTOPEFT_API_TOKEN", token)
