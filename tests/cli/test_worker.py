from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopeft.cli import _worker
from autopeft.orchestrate import SearchSettings
from tests.cli.conftest import Cli


class FakeSupervisor:
    made: Any = None

    def __init__(self, store: Any, settings: Any) -> None:
        FakeSupervisor.made = settings
        self.id = "host:k:1:0"

    def stop(self) -> None: ...

    def run(self) -> int:
        logging.getLogger("autopeft.worker").info("trial 3 begins.", extra={"study": "s", "trial": 3})
        return 7


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _worker.workers_module
    fakes = {"supervisor": SimpleNamespace(Supervisor=FakeSupervisor)}
    monkeypatch.setattr(_worker, "workers_module", lambda name: fakes.get(name) or real(name))


@pytest.mark.usefixtures("_fake")
def test_flags_become_settings_and_the_log_names_the_study(cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        *("worker", "--db", str(tmp_path / "a.db"), "--study", "a", "--study", "b", "--device", "cuda:1"),
        *("--gpu-share", "0.5", "--cohort", "4", "--memory-limit", "4G", "--trial-timeout", "90s"),
        *("--idle-timeout", "10m", "--once", "--lease", "30s", "--allow-code", "--threads", "2"),
    )
    assert ran.code == 0, ran.err
    made = FakeSupervisor.made
    assert (made.studies, made.device, made.gpu_share, made.cohort) == (("a", "b"), "cuda:1", 0.5, 4)
    assert (made.memory_limit_bytes, made.trial_timeout_s, made.idle_timeout_s) == (4 * 2**30, 90, 600)
    assert (made.is_once, made.lease_s, made.allow_code, made.threads) == (True, 30, True, 2)
    assert "INFO [s] trial 3 begins." in ran.err
    assert "ends after 7 trials" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--memory-limit", "lots"), "a size is written like 4G or 512M, but got 'lots'"),
        (("--gpu-share", "1.5"), "--gpu-share must lie in (0, 1]"),
        (("--cohort", "0"), "--cohort must be at least 1"),
        (("--lease", "0.1s"), "--lease must be at least 1"),
        (("--artifacts", "s3://key:secret@bucket/x"), "credentials do not belong in the URL"),
        (("--trial-timeout", "soon"), "a duration is written like"),
    ],
)
def test_wrong_values_are_told(cli: Cli, flags: tuple[str, str], message: str) -> None:
    ran = cli("worker", *flags)
    assert ran.code == 2
    assert message in ran.err


def test_an_unreachable_database_is_one_message(cli: Cli) -> None:
    ran = cli("worker", "--db", "postgresql://u@127.0.0.1:1/x")
    assert ran.code == 4
    assert ran.err.count("error:") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"executor": "dask"}, "unknown executor 'dask'"),
        ({"address": "auto"}, "--address and --workers go with --executor ray"),
        ({"executor": "workers", "workers": 2}, "--address and --workers go with --executor ray"),
        ({"executor": "ray", "worker_cpus": 0.0}, "--worker-cpus must be positive"),
        ({"executor": "ray", "worker_gpus": -1.0}, "--worker-gpus must be at least 0"),
        ({"executor": "ray", "workers": 0}, "--workers must be at least 1"),
    ],
)
def test_settings_of_executors_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSettings(task="x", **changes)
