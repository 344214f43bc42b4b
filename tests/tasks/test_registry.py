"""Oracles: the dictionary itself, and tasks loaded twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autopeft.exceptions import TaskError, UnknownNameError
from autopeft.tasks import TASKS, list_tasks, load_task, reload_task
from tests.tasks.test_files import reviews, write_csv
from tests.tasks.test_glue import write_glue


def test_every_task_is_described() -> None:
    assert [task.name for task in list_tasks()] == sorted(TASKS)
    for name, task in TASKS.items():
        assert task.name == name
        assert task.description
        assert task.origin
        assert task.metrics
    assert [task.name for task in list_tasks() if not task.needs_network] == ["stdlib/topics"]


def test_descriptions_agree_with_the_tasks(tmp_path: Path) -> None:
    for key in ("cola", "stsb"):
        task = load_task(f"glue/{key}", data_dir=write_glue(tmp_path, key))
        described = TASKS[f"glue/{key}"]
        assert (task.kind, task.metrics, task.description) == (
            described.kind,
            described.metrics,
            described.description,
        )
    task = load_task("stdlib/topics")
    described = TASKS["stdlib/topics"]
    assert (task.kind, task.metrics, task.description) == (described.kind, described.metrics, described.description)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glue/sst-2", r"unknown task 'glue/sst-2'\. Did you mean glue/sst2.*named by its path; it must exist"),
        ("stdlib/topic", r"Did you mean stdlib/topics"),
        ("reviews", r"unknown task 'reviews'\. Known: glue/cola, .*must exist and end in \.csv"),
        ("", r"unknown task ''"),
    ],
)
def test_unknown_tasks(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UnknownNameError, TaskError), match=message):
        load_task(name)


def test_a_missing_file_is_no_unknown_task(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"reviews\.csv does not exist"):
        load_task(str(tmp_path / "reviews.csv"))
    with pytest.raises(TaskError, match="is a folder"):
        load_task(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_fraction": 0.0}, r"train_fraction must lie in \(0, 1\], but got 0"),
        ({"train_fraction": 1.5}, "got 1.5"),
        ({"train_fraction": float("nan")}, "got nan"),
        ({"search_fraction": 0.6}, r"search_fraction must lie in \(0, 0\.5\]"),
        ({"report_fraction": -1.0}, "report_fraction"),
        ({"max_search_examples": 0}, "max_search_examples must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"kind": "ranking"}, "unknown kind 'ranking'"),
        ({"label_column": "label"}, "has its own columns"),
        ({"kind": "regression"}, "has its own columns and kind"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TaskError, UnknownNameError), match=message):
        load_task("stdlib/topics", **arguments)


def test_tasks_can_be_loaded_again_from_their_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "reviews.csv", reviews(200))
    tasks = [
        load_task("reviews.csv", seed=3, train_fraction=0.5, max_report_examples=11, report_fraction=0.3),
        load_task("glue/rte", data_dir=write_glue(tmp_path / "glue", "rte"), seed=2, train_fraction=0.1),
        load_task("stdlib/topics", seed=1, train_fraction=0.3),
    ]
    monkeypatch.chdir("/")
    for task in tasks:
        settings = json.loads(json.dumps(task.settings()))
        assert reload_task(settings).settings() == settings


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    settings = load_task(write_csv(tmp_path / "reviews.csv", reviews(200))).settings()
    write_csv(tmp_path / "reviews.csv", reviews(201))
    with pytest.raises(TaskError, match=re.escape(settings["content_hash"][:12])):
        reload_task(settings)
    (tmp_path / "reviews.csv").unlink()
    with pytest.raises(TaskError, match="does not exist"):
        reload_task(settings)


def test_listing_tasks_imports_nothing_heavy() -> None:
    program = (
        "import sys; from autopeft.tasks import list_tasks; list_tasks(); "
        "print({'torch', 'pandas', 'scipy', 'sklearn', 'datasets', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "set()", "")
