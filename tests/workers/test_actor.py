from __future__ import annotations

import socket
from pathlib import Path

import pytest

from workers.actor import cache_folder


def test_caches_are_where_the_machine_says_else_where_the_search_says_on_its_own_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTOPEFT_HOME", "/srv/autopeft")
    assert cache_folder(Path("/of/the/search"), "elsewhere") == Path("/srv/autopeft/cache")
    monkeypatch.delenv("AUTOPEFT_HOME")
    assert cache_folder(Path("/of/the/search"), socket.gethostname()) == Path("/of/the/search")
    assert cache_folder(Path("/of/the/search"), "elsewhere") != Path("/of/the/search")
