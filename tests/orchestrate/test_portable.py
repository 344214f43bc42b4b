from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from autopeft.orchestrate import SearchSettings
from autopeft.orchestrate._portable import package_versions, settings_from_dict, settings_to_dict, version_problem
from autopeft.orchestrate._settings import EXECUTION


def test_settings_come_back_through_json_without_where_trials_run() -> None:
    settings = SearchSettings(
        task="a.csv",
        data_dir=Path("data"),
        objectives=("accuracy", "latency"),
        reward_options={"memorization": {"share": 0.2}},
        time_s=60.0,
        executor="ray",
        workers=3,
        memory_limit_bytes=2**32,
        trial_timeout_s=90.0,
        address="ray://elsewhere:10001",
    )
    data = json.loads(json.dumps(settings_to_dict(settings)))
    assert "elsewhere" not in json.dumps(data)
    assert data["folder"] == str(Path.cwd())
    default = SearchSettings(task="a.csv")
    back = settings_from_dict(data)
    for item in fields(SearchSettings):
        expected = default if item.name in EXECUTION else settings
        assert getattr(back, item.name) == getattr(expected, item.name), item.name


def test_settings_of_a_newer_version_are_read_without_what_is_unknown() -> None:
    assert settings_from_dict({"task": "x", "invented_later": 1}) == SearchSettings(task="x")


def test_versions_are_those_that_are_installed() -> None:
    found = package_versions()
    assert {"autopeft", "torch", "transformers", "numpy"} <= set(found)


@pytest.mark.parametrize(
    ("begun", "here", "expected"),
    [
        ({"torch": "2.13.0+cpu"}, {"torch": "2.13.1+cu128"}, None),
        ({"torch": "2.13.0"}, {"torch": "2.9.0"}, "torch 2.9.0 here, the study was begun with 2.13.0"),
        ({"autopeft": "0.1.0"}, {"autopeft": "0.1.1"}, "autopeft 0.1.1 here, the study was begun with 0.1.0"),
        ({"torch": "2.13.0"}, {}, "torch missing here, the study was begun with 2.13.0"),
        ({}, {"torch": "2.13.0"}, None),
        ({"numpy": "2.1"}, {"numpy": "2.3.4"}, None),
    ],
)
def test_versions_agree_as_far_as_numbers_depend_on_them(
    begun: dict[str, str], here: dict[str, str], expected: str | None
) -> None:
    assert version_problem(begun, here) == expected
