from __future__ import annotations

import re
from dataclasses import fields

import pytest
import typer

from autopeft.cli._app import app
from autopeft.cli._search_flags import SEARCH_FLAGS
from autopeft.orchestrate import SearchSettings
from tests.cli.conftest import Cli

DEFAULTS = {item.name: getattr(SearchSettings(task="x"), item.name) for item in fields(SearchSettings)}


def test_every_setting_has_its_flag_and_no_flag_lacks_its_setting() -> None:
    assert set(SEARCH_FLAGS) == set(DEFAULTS)


@pytest.mark.parametrize("name", SEARCH_FLAGS)
def test_defaults_told_in_the_help_are_the_settings_own(name: str) -> None:
    text = SEARCH_FLAGS[name].__metadata__[0].help
    told = re.search(r"Default: ([^;.]+(?:\.\d+)?)", text)
    default = DEFAULTS[name]
    if default in (None, (), "", False, {}) or name in ("task", "train_fraction"):
        return
    assert told is not None, text
    words = {True: "yes"}.get(default, str(default)) if isinstance(default, bool) else str(default)
    assert words in told[1], (name, text)


@pytest.mark.parametrize("command", ["search", "plan"])
def test_search_and_plan_take_the_flags_that_a_resume_command_uses(command: str) -> None:
    from autopeft.orchestrate import resume_command

    known = {
        option
        for item in typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
        for option in (*item.opts, *item.secondary_opts)
    }
    changed = {
        "task": "other",
        "budget": "2%",
        "objectives": ("accuracy",),
        "text_columns": ("a", "b"),
        "time_s": 60.0,
        "train_fraction": 0.5,
        "precision": "float32",
        "kind": "regression",
        "baselines": False,
        "allow_pickle": True,
        "trust_remote_code": True,
        "executor": "ray",
        "worker_cpus": 2.0,
        "worker_gpus": 0.5,
        "memory_limit_bytes": 2**32,
        "trial_timeout_s": 90.0,
    }
    numbers = (
        "trials",
        "seeds",
        "confirm_top",
        "seed",
        "train_examples",
        "epochs",
        "batch_size",
        "max_tokens",
        "cohort",
        "workers",
    )
    texts = [name for name in DEFAULTS if name not in changed and name not in (*numbers, "data_dir")]
    settings = SearchSettings(
        **changed,  # type: ignore[arg-type]
        **dict.fromkeys(numbers, 9),  # type: ignore[arg-type]
        **dict.fromkeys(texts, "word"),  # type: ignore[arg-type]
    )
    used = {word for word in resume_command(settings).split() if word.startswith("--")}
    assert len(used) >= 25
    assert used <= known


def test_a_flag_given_twice_is_a_list(cli: Cli) -> None:
    ran = cli("search", "--task", "x", "--objective", "a", "--objective", "b", "--batch-size", "0")
    assert ran.code == 2
    assert "--batch-size must be at least 1, but got 0" in ran.err
