"""A service without processes: drivers are remembered, not started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from autopeft.service import ServiceSettings, ServiceState, TokenBook, create_app, open_state
from autopeft.service._tokens import Caller, Role
from tests.cli.conftest import _write_study
from tests.export.studies import full_study

ADA, BOB, ROOT, EYE = (f"{name}-0123456789abcdef" for name in ("ada", "bob", "root", "eye"))
TOKENS = (
    (Caller(name="ada", role=Role.WRITE), ADA),
    (Caller(name="bob", role=Role.WRITE), BOB),
    (Caller(name="root", role=Role.ADMIN), ROOT),
    (Caller(name="eye", role=Role.READ), EYE),
)
SETTINGS = {"task": "stdlib/topics", "trials": 4}


@dataclass
class FakeDrivers:
    """Drivers that do what the test says."""

    started: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    stopped: list[tuple[str, bool]] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    def start(self, study: str, settings: Mapping[str, Any]) -> str:
        self.started.append((study, settings))
        return f"host:k:{len(self.started)}:{study}"

    def exit_code(self, study: str, process: str) -> int | None:
        return self.codes.get(process)

    def stop(self, process: str, *, is_patient: bool) -> None:
        self.stopped.append((process, is_patient))

    def last_error(self, study: str) -> str | None:
        return self.errors.get(study)

    def log(self, study: str, offset: int) -> tuple[str, int]:
        text = self.logs.get(study, "")
        return text[offset:], len(text)


Open = Callable[..., ServiceState]


@pytest.fixture
def drivers() -> FakeDrivers:
    return FakeDrivers()


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return ServiceSettings(
        database=f"sqlite:///{tmp_path}/service.db",
        folder=tmp_path / "service folder",
        tokens=TokenBook(TOKENS),
        rate=1000,
        burst=1000,
        grace_s=0.2,
    )


@pytest.fixture
def open_service(settings: ServiceSettings, drivers: FakeDrivers) -> Iterator[Open]:
    """Open a service with some settings changed."""
    opened: list[ServiceState] = []

    def make(**changes: Any) -> ServiceState:
        opened.append(open_state(replace(settings, **changes), drivers))
        return opened[-1]

    yield make
    for state in opened:
        state.store.close()
        state.totals.close()
        state.submissions.close()


@pytest.fixture
def state(open_service: Open) -> ServiceState:
    return open_service()


def client_of(state: ServiceState, token: str | None = ADA, **options: Any) -> TestClient:
    """A client of a service whose scheduler does not run."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return TestClient(create_app(state), base_url="http://127.0.0.1:8500", headers=headers, **options)


@pytest.fixture
def client(state: ServiceState) -> TestClient:
    return client_of(state)


@pytest.fixture
def study_name(state: ServiceState) -> str:
    """A finished study in the service's database."""
    study = full_study()
    _write_study(state.store, study)
    return study.spec.name
