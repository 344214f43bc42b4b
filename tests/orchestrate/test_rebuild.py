"""A worker rebuilds from the store what the driver loaded, and refuses what is not the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.exceptions import TaskError, UsageError
from autopeft.orchestrate import SearchSettings, SilentProgress, load_runner, prepare, run_search
from autopeft.orchestrate._executor import job_of
from autopeft.orchestrate._rebuild import names_code, rebuild_runner
from autopeft.store import MemoryStore
from autopeft.study import Study
from tests.end_to_end.conftest import write_reviews
from tests.orchestrate.test_search import settings_in

REWARD = """
from autopeft.rewards import reward

@reward(direction="minimize")
def silly(candidate):
    return {value}
"""


def begun(folder: Path, **changes: object) -> tuple[Study, SearchSettings]:
    """A study with one trained trial."""
    settings = settings_in(folder, trials=1, baselines=False, confirm_top=0, study="mine", **changes)
    store = MemoryStore()
    run_search(prepare(settings), store, SilentProgress(), cache_dir=folder / "cache", store_url="memory")
    return store.load_study("mine"), settings


def test_the_rebuilt_inner_loop_gives_the_same_numbers_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: what the driver's own inner loop gave."""
    study, settings = begun(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    runner, cohort = rebuild_runner(study, cache_dir=tmp_path / "other", device="cpu")
    (trial,) = study.trials
    (outcome,) = runner.run([job_of(trial)])
    assert outcome.measurements[0].metrics == trial.measurements[0].metrics
    assert cohort == 1
    same = load_runner(prepare(settings), cache_dir=tmp_path / "third").backbone
    assert runner.backbone.content_hash == same.content_hash


def test_changed_data_and_weights_are_refused(tmp_path: Path) -> None:
    study, _ = begun(tmp_path)
    other = replace(study, attributes={**study.attributes, "backbone_hash": "0" * 64})
    with pytest.raises(UsageError, match=r"weights of backbone .* are others here"):
        rebuild_runner(other, cache_dir=tmp_path / "c", device="cpu")
    write_reviews(tmp_path / "reviews.csv", n=100, seed=3)
    with pytest.raises(TaskError, match=r"not those of the study any more"):
        rebuild_runner(study, cache_dir=tmp_path / "c", device="cpu")


def test_code_that_a_study_names_runs_only_where_it_is_allowed_and_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(REWARD.format(value=0.5))
    study, _ = begun(tmp_path, record=("mine.py:silly",))
    assert names_code(study) == "the reward function mine.py:silly"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"needs the reward function mine.py:silly.*--allow-code"):
        rebuild_runner(study, cache_dir=tmp_path / "c", device="cpu")
    runner, _ = rebuild_runner(study, cache_dir=tmp_path / "c", device="cpu", allow_code=True)
    (outcome,) = runner.run([job_of(study.trials[0])])
    assert outcome.measurements[0].metrics["silly"] == 0.5
    (tmp_path / "mine.py").write_text(REWARD.format(value=0.7))
    with pytest.raises(UsageError, match=r"rewards silly are others here"):
        rebuild_runner(study, cache_dir=tmp_path / "c", device="cpu", allow_code=True)


def test_what_counts_as_code(tmp_path: Path) -> None:
    study, _ = begun(tmp_path)
    assert names_code(study) is None
    for key, words in (("trust_remote_code", "code that comes with"), ("allow_pickle", "pickled weights")):
        changed = replace(study, attributes={"settings": {key: True}})
        assert words in str(names_code(changed))
