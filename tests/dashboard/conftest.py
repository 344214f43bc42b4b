from __future__ import annotations

from pathlib import Path

import pytest

from tests.dashboard.studies import full
from tests.store.conftest import cluster  # noqa: F401  (a fixture)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture(scope="session")
def full_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with one study that has everything; read only."""
    url = f"sqlite:///{tmp_path_factory.mktemp('full') / 'studies.db'}"
    full(url)
    return url
