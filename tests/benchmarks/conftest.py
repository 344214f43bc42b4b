"""Benchmarks silence our loggers, which other tests listen to."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    logger = logging.getLogger("autopeft")
    level = logger.level
    yield
    logger.setLevel(level)
