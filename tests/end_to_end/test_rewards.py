"""Searches with rewards, from the settings to the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopeft.exceptions import StudyMismatchError
from autopeft.export import render_report
from autopeft.orchestrate import SearchResult, SearchSettings, SilentProgress, prepare, run_search
from autopeft.store import TrialStore, open_store
from autopeft.study import TrialKind, TrialState
from tests.end_to_end.conftest import write_reviews
from tests.tiny import tiny_folder

#: What a user writes; the documentation shows the same (see `tests/docs/test_rewards.py`).
MINE = '''
from autopeft.rewards import TrainedCandidate, reward


@reward(direction="minimize", unit="classes", cost="nothing")
def unused_classes(candidate: TrainedCandidate) -> float:
    """Classes that the model never predicts."""
    return len(candidate.task.label_names) - len(set(candidate.predictions()))


@reward(direction="maximize")
def shaky(candidate: TrainedCandidate) -> float:
    """Fails for high learning rates."""
    return 1 / (candidate.configuration.learning_rate < 3e-3)
'''

SPACE = """
name: with_rewards
description: LoRA on one layer or both, chosen by quality and what is never predicted.
objectives: [quality, "mine.py:unused_classes"]
parameters:
  block: {type: bool, per_layer: true}
  learning_rate: {type: float, low: 1e-3, high: 1e-2, log: true}
modules:
  lora: {size: 2, parts: [q, v]}
layers: {bits: block}
learning_rate: learning_rate
budget: reject
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder: data, a backbone, and a module with rewards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    tiny_folder(tmp_path / "backbone", "bert", n_layers=2)
    write_reviews(tmp_path / "reviews.csv")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "space.yaml").write_text(SPACE)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def searched(folder: Path, store: TrialStore, **changes: object) -> SearchResult:
    values: dict[str, object] = {
        "task": str(folder / "reviews.csv"),
        "backbone": str(folder / "backbone"),
        "space": str(folder / "space.yaml"),
        "budget": "5%",
        "sampler": "random",
        "trials": 3,
        "seeds": 2,
        "confirm_top": 1,
        "epochs": 1,
        "train_examples": 64,
        "reward_options": {"memorization": {"share": 0.5}},
        "baselines": False,
    }
    prepared = prepare(SearchSettings(**{**values, **changes}))  # type: ignore[arg-type]
    return run_search(prepared, store, SilentProgress(), cache_dir=folder / "cache", store_url="memory")


def test_three_objectives_of_which_one_is_the_user_s(folder: Path) -> None:
    names = ("memorization", "accuracy", "mine.py:unused_classes")
    with open_store(f"sqlite:///{folder}/studies.db") as store:
        result = searched(folder, store, objectives=names, record=("latency_s",))
        study = store.load_study(result.study.spec.name)
    assert [item.name for item in study.spec.objectives] == ["accuracy", "memorization", "unused_classes"]
    found = study.of_kind(TrialKind.SEARCH, state=TrialState.COMPLETE)
    assert len(found) == 3
    for item in found:
        assert -1 <= item.value("memorization") <= 1
        assert item.value("unused_classes") in (0.0, 1.0)
        assert item.value("latency_s") > 0
        assert item.value("reward_time_s") > 0
        assert item.measurement().metrics["memorization.auc"] == pytest.approx((item.value("memorization") + 1) / 2)
    (row,) = result.summary["confirmed"]
    assert set(row["secondary"]) == {"memorization", "unused_classes", "latency_s"}
    for split in ("search", "report"):
        assert set(row["secondary"]["memorization"][split]) == {"mean", "low", "high"}
    report = render_report(study, "md")
    assert "unused_classes" in report
    assert "Further objectives and rewards of the confirmed trials" in report


def test_space_names_its_objectives_and_the_user_s_go_first(folder: Path) -> None:
    with open_store(f"sqlite:///{folder}/studies.db") as store:
        own = searched(folder, store, reward_options={}, confirm_top=0).study
        other = searched(folder, store, reward_options={}, confirm_top=0, objectives=("macro_f1",)).study
    assert [item.name for item in own.spec.objectives] == ["accuracy", "unused_classes"]
    assert all(item.value("unused_classes") is not None for item in own.trials)
    assert [item.name for item in other.spec.objectives] == ["macro_f1"]
    # Measured only where an objective asks for it.
    assert all(item.value("unused_classes") is None for item in other.trials)
    assert all(item.value("reward_time_s") is None for item in other.trials)


def test_reward_that_fails_fails_its_trial_and_the_search_goes_on(folder: Path) -> None:
    names = ("accuracy", "mine.py:shaky")
    with open_store(f"sqlite:///{folder}/studies.db") as store:
        study = searched(folder, store, objectives=names, reward_options={}, trials=8, cohort=3).study
    searched_trials = study.of_kind(TrialKind.SEARCH)
    assert len(searched_trials) == 8
    failed = [item for item in searched_trials if item.state is TrialState.FAILED]
    assert {item.number for item in failed} == {
        item.number for item in searched_trials if item.configuration.learning_rate >= 3e-3
    }
    assert 0 < len(failed) < 8
    for item in failed:
        assert item.failure.reason == "reward"
        assert item.failure.message == "reward shaky: ZeroDivisionError: division by zero"
        assert "mine.py" in item.failure.traceback
        # What was measured until then is kept.
        assert item.curve[-1].metrics["accuracy"] > 0
    for item in searched_trials:
        if item not in failed:
            assert item.value("shaky") == 1.0


def test_numbers_repeat_from_the_seed(folder: Path) -> None:
    found = []
    for name in ("a", "b"):
        with open_store(f"sqlite:///{folder}/{name}.db") as store:
            study = searched(folder, store, objectives=("accuracy", "memorization", "robustness"), cohort=3).study
        found.append([{k: item.value(k) for k in ("memorization", "robustness")} for item in study.trials])
    for one, other in zip(*found, strict=True):
        assert one == other


def test_changed_code_of_a_reward_does_not_go_on_with_the_old_study(folder: Path) -> None:
    import linecache

    names = ("accuracy", "mine.py:unused_classes")
    with open_store(f"sqlite:///{folder}/studies.db") as store:
        searched(folder, store, objectives=names, reward_options={}, confirm_top=0, study="mine")
        (folder / "mine.py").write_text(MINE.replace("- len(", "- 0 * len("))
        linecache.checkcache()
        with pytest.raises(StudyMismatchError, match=r"unused_classes.settings.code"):
            searched(folder, store, objectives=names, reward_options={}, confirm_top=0, study="mine")
