from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from autopeft.cli import main
from autopeft.store import SqlStore
from autopeft.study import Study, TrialState

Save = Callable[..., str]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command line in this process, as on a wide screen without colors."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[Study, ...]], Path]:
    """Databases by content, each written once: every trial is several transactions."""
    files: dict[str, Path] = {}

    def write(studies: tuple[Study, ...]) -> Path:
        key = repr(studies)
        if key not in files:
            path = tmp_path_factory.mktemp("database") / "studies.db"
            store = SqlStore(path)
            try:
                for study in studies:
                    _write_study(store, study)
            finally:
                store.close()
            files[key] = path
        return files[key]

    return write


@pytest.fixture
def save(tmp_path: Path, _written: Callable[[tuple[Study, ...]], Path]) -> Save:
    """Write studies to an SQLite database of the test's own, through the store's methods; gives the path."""

    def write(*studies: Study) -> str:
        return str(shutil.copyfile(_written(studies), tmp_path / "studies.db"))

    return write


def _write_study(store: SqlStore, study: Study) -> None:
    name = study.spec.name
    store.create_study(study.spec)
    for trial in study.trials:
        added = store.add_trial(name, trial.draft)
        assert added.number == trial.number
        if trial.state is TrialState.WAITING:
            continue
        store.claim_trial(name, "host:1:2", lease_s=600, numbers=[trial.number])
        for point in trial.curve:
            store.add_point(name, trial.number, "host:1:2", point)
        if trial.state is TrialState.COMPLETE:
            store.complete_trial(name, trial.number, "host:1:2", trial.measurements)
        elif trial.failure is not None:
            store.fail_trial(name, trial.number, "host:1:2", trial.failure)
    for key, value in study.attributes.items():
        store.set_attribute(name, key, value)
