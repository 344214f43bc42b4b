from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autopeft.exceptions import UsageError
from workers.settings import WorkerSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu_share": 0.0}, "--gpu-share must lie in"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"memory_limit_bytes": 10}, "--memory-limit must be at least 1048576, but got 10"),
        ({"trial_timeout_s": 0.0}, "--trial-timeout must be positive"),
        ({"idle_timeout_s": -1.0}, "--idle-timeout must be positive"),
    ],
)
def test_impossible_settings_name_their_flag(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WorkerSettings(cache_dir=Path("x"), **changes)


def test_the_engine_is_started_with_its_part() -> None:
    settings = WorkerSettings(cache_dir=Path("x"), device="cuda:1", gpu_share=0.5, cohort=3, threads=2, allow_code=True)
    engine = settings.engine
    for name in engine.__dataclass_fields__:
        assert getattr(engine, name) == getattr(settings, name)
