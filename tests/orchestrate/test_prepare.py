from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from autopeft.exceptions import BudgetError, UnknownNameError, UsageError
from autopeft.orchestrate import SearchSettings, parse_share, prepare, resume_command
from autopeft.orchestrate._settings import parse_reward_options
from tests.end_to_end.conftest import write_reviews
from tests.tiny import tiny_folder


@pytest.fixture
def settings(tmp_path: Path) -> SearchSettings:
    tiny_folder(tmp_path / "backbone", "bert", n_layers=2)
    return SearchSettings(
        task=str(write_reviews(tmp_path / "reviews.csv")), backbone=str(tmp_path / "backbone"), budget="5%"
    )


def test_everything_that_defines_the_study_is_in_its_spec(settings: SearchSettings) -> None:
    prepared = prepare(settings)
    spec = prepared.spec
    assert spec.budget == int(0.05 * prepared.backbone.shapes.parameters)
    assert spec.backbone["n_layers"] == 2
    assert spec.task["content_hash"] == prepared.task.content_hash
    assert [item.name for item in spec.objectives] == ["accuracy", "trainable_parameters"]
    assert spec.fidelity.train_examples <= len(prepared.task.train)
    assert spec.name.startswith("reviews-backbone-5pct-")


def test_the_same_settings_name_the_same_study_and_others_another(settings: SearchSettings) -> None:
    name = prepare(settings).spec.name
    assert prepare(settings).spec.name == name
    # What only says how long to go on does not define a study.
    assert prepare(settings.with_changes(trials=50, seeds=5, confirm_top=1, time_s=9.0)).spec.name == name
    for changes in ({"budget": "6%"}, {"seed": 1}, {"sampler": "random"}, {"epochs": 1}, {"space": "autopeft"}):
        assert prepare(settings.with_changes(**changes)).spec.name != name


def test_changed_data_keep_the_name_so_that_the_change_is_noticed(settings: SearchSettings) -> None:
    before = prepare(settings).spec
    write_reviews(Path(settings.task), seed=1)
    after = prepare(settings).spec
    assert after.name == before.name
    assert any("content_hash" in line for line in after.differences(before))


def test_epochs_and_examples_override_the_tasks_own(settings: SearchSettings) -> None:
    fidelity = prepare(settings.with_changes(epochs=7, train_examples=10)).spec.fidelity
    assert (fidelity.epochs, fidelity.train_examples) == (7, 10)
    many = prepare(settings.with_changes(train_examples=10**6))
    assert many.spec.fidelity.train_examples == len(many.task.train)


def test_wrong_names_and_budgets_are_refused_before_anything_is_loaded(settings: SearchSettings) -> None:
    with pytest.raises(UnknownNameError, match="bayesian"):
        prepare(settings.with_changes(sampler="bayesain"))
    with pytest.raises(BudgetError, match="smallest configuration"):
        prepare(settings.with_changes(budget="2"))


def test_the_resume_command_parses_back_to_the_same_settings(settings: SearchSettings) -> None:
    changed = settings.with_changes(
        trials=7, baselines=False, train_fraction=0.02, objectives=("accuracy",), time_s=90.0, seed=3
    )
    words = shlex.split(resume_command(changed, ("--db", "x.db")))
    assert words[:4] == ["autopeft", "search", "--task", settings.task]
    assert "--no-baselines" in words
    assert words[words.index("--train-fraction") + 1] == "2%"
    assert words[words.index("--time") + 1] == "90"
    assert words[-2:] == ["--db", "x.db"]
    assert "--sampler" not in words


def test_a_metric_of_the_task_comes_first_whatever_the_order_of_the_flags(settings: SearchSettings) -> None:
    spec = prepare(settings.with_changes(objectives=("trainable_parameters", "macro_f1"))).spec
    assert [item.name for item in spec.objectives] == ["macro_f1", "trainable_parameters"]
    with pytest.raises(UsageError, match="accuracy"):
        prepare(settings.with_changes(objectives=("wall_time_s",)))


def test_the_resume_command_keeps_every_digit(settings: SearchSettings) -> None:
    share = 1 / 3
    words = shlex.split(resume_command(settings.with_changes(train_fraction=share, time_s=100000.5)))
    assert parse_share(words[words.index("--train-fraction") + 1]) == share
    assert float(words[words.index("--time") + 1]) == 100000.5


def test_the_resume_command_names_rewards_and_their_options(settings: SearchSettings) -> None:
    options = {"memorization": {"share": "0.2", "max_examples": "200"}}
    changed = settings.with_changes(
        objectives=("quality", "memorization"), record=("latency_s",), reward_options=options
    )
    words = shlex.split(resume_command(changed))
    assert words[words.index("--record") + 1] == "latency_s"
    given = [words[i + 1] for i, word in enumerate(words) if word == "--reward-option"]
    assert parse_reward_options(given) == options
