from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.orchestrate import SearchSettings, prepare
from autopeft.orchestrate._rewards import probe_rewards, resolve_rewards, reward_settings
from autopeft.rewards import REWARDS, RewardPanel, reward
from autopeft.rewards._function import declared
from autopeft.study import Fidelity, StudySpec
from tests.backbones.test_language_model import language_model
from tests.end_to_end.conftest import write_reviews
from tests.tiny import tiny_folder
from tests.training.toys import lora, toy_runner, toy_task

CODE = """
from autopeft.rewards import reward

@reward(direction="maximize", unit="lm")
def shine(candidate):
    return {value}
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchSettings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    tiny_folder(tmp_path / "backbone", "bert", n_layers=2)
    (tmp_path / "mine.py").write_text(CODE.format(value=0.5))
    return SearchSettings(
        task=str(write_reviews(tmp_path / "reviews.csv")), backbone=str(tmp_path / "backbone"), budget="5%"
    )


def resolved(task=None, space=(), **changes):
    return resolve_rewards(SearchSettings(**{"task": "toy", **changes}), space, task or toy_task(n_train=200))


def test_default_is_the_first_metric_and_the_parameters_without_rewards():
    objectives, rewards = resolved()
    assert [item.name for item in objectives] == ["accuracy", "trainable_parameters"]
    assert rewards == {}


def test_objectives_of_the_user_go_before_those_of_the_space():
    assert [item.name for item in resolved(space=("quality", "memorization"))[0]] == ["accuracy", "memorization"]
    objectives, _ = resolved(space=("quality", "memorization"), objectives=("quality", "latency_s"))
    assert [item.name for item in objectives] == ["accuracy", "latency_s"]


def test_metric_comes_first_whatever_the_order():
    objectives, _ = resolved(objectives=("memorization", "trainable_parameters", "accuracy"))
    assert [item.name for item in objectives] == ["accuracy", "memorization", "trainable_parameters"]


def test_recorded_rewards_are_measured_but_not_optimised():
    objectives, rewards = resolved(
        objectives=("accuracy", "memorization"), record=("calibration_error", "memorization", "wall_time_s", "accuracy")
    )
    assert [item.name for item in objectives] == ["accuracy", "memorization"]
    # What every trial has anyway needs no reward.
    assert list(rewards) == ["memorization", "calibration_error"]


def test_objective_has_the_reward_s_direction_and_unit():
    objective = resolved(objectives=("accuracy", "latency_s"))[0][1]
    assert (objective.direction.value, objective.unit, objective.is_known) == ("minimize", "s", False)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"objectives": ("memorization",)}, UsageError, "one metric of task toy is needed: accuracy"),
        ({"objectives": ("accuracy", "memorisation")}, UnknownNameError, "Did you mean memorization"),
        ({"record": ("shiny",)}, UnknownNameError, "unknown objective 'shiny'.*accuracy.*wall_time_s"),
        ({"reward_options": {"memorization": {"share": 0.2}}}, UnknownNameError, "Options go with an objective"),
    ],
)
def test_wrong_names_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        resolved(**changes)


def test_reward_that_is_not_defined_for_the_task_is_refused_with_the_reason():
    with pytest.raises(
        UsageError, match="calibration_error is defined for classification tasks, but toy is a regression"
    ):
        resolved(toy_task(regression=True), objectives=("pearson", "calibration_error"))


def test_study_s_spec_says_what_is_measured_and_how(settings: SearchSettings) -> None:
    chosen = settings.with_changes(
        objectives=("accuracy", "memorization"),
        record=("mine.py:shine",),
        reward_options={"memorization": {"share": 0.4}},
    )
    spec = prepare(chosen).spec
    assert set(spec.rewards) == {"memorization", "shine"}
    assert spec.rewards["memorization"] == {
        "reference": "memorization",
        "direction": "minimize",
        "unit": "",
        "settings": {"share": 0.4, "max_examples": 1000},
    }
    assert spec.rewards["shine"]["reference"] == "mine.py:shine"
    assert StudySpec.from_dict(spec.to_dict()) == spec
    assert prepare(chosen).spec == spec


def test_changed_code_of_a_reward_is_another_study(settings: SearchSettings, tmp_path: Path) -> None:
    chosen = settings.with_changes(objectives=("accuracy", "mine.py:shine"), study="mine")
    before = prepare(chosen).spec
    named = prepare(chosen.with_changes(study=None)).spec.name
    (tmp_path / "mine.py").write_text(CODE.format(value=0.75))
    # Python keeps source lines of a file that it has read.
    import linecache

    linecache.checkcache()
    (line,) = prepare(chosen).spec.differences(before)
    # The name that the settings give is the same: the change is noticed.
    assert prepare(chosen.with_changes(study=None)).spec.name == named
    assert line.startswith("rewards.shine.settings.code: ")


def test_study_without_rewards_is_as_it_was_before_there_were_any(settings: SearchSettings) -> None:
    spec = prepare(settings).spec
    assert "rewards" not in spec.to_dict()
    assert prepare(settings).rewards is None


def test_examples_for_the_attack_are_kept_from_training(settings: SearchSettings) -> None:
    plain = prepare(settings.with_changes(train_examples=10**6))
    attacked = prepare(settings.with_changes(train_examples=10**6, record=("memorization",)))
    n = len(plain.task.train)
    assert plain.spec.fidelity.train_examples == n
    assert attacked.spec.fidelity.train_examples == n - REWARDS["memorization"].reserve(n)


def test_code_is_run_only_when_it_is_named(settings: SearchSettings, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemError('ran')")
    prepare(settings)
    with pytest.raises(UsageError, match=r"importing mine.py failed: SystemError: ran"):
        prepare(settings.with_changes(record=("mine.py:shine",)))


def test_reward_settings_are_by_name():
    item = REWARDS["calibration_error"]
    assert reward_settings({"calibration_error": item}, toy_task()) == {
        "calibration_error": {
            "reference": "calibration_error",
            "direction": "minimize",
            "unit": "",
            "settings": {"bins": 15},
        }
    }


def test_probe_times_the_rewards_on_an_untrained_model_and_nothing_else():
    order = []

    @reward(direction="minimize")
    def slow(candidate):
        import time

        order.append((candidate.split, candidate.fidelity.train_examples))
        time.sleep(0.05)
        return 0.0

    runner = toy_runner(task=toy_task(n_train=200))
    seconds, problem = probe_rewards(
        runner, RewardPanel([declared(slow)]), lora((1,)), Fidelity(train_examples=40, epochs=2)
    )
    assert 0.05 <= seconds < 5
    assert problem is None
    assert order == [("search", 40)]
    assert probe_rewards(runner, None, lora((1,)), Fidelity(train_examples=40, epochs=2)) == (None, None)


def test_probe_of_a_reward_that_fails_says_why():
    @reward(direction="minimize")
    def broken(candidate):
        return float("nan")

    found = probe_rewards(
        toy_runner(), RewardPanel([declared(broken)]), lora((1,)), Fidelity(train_examples=40, epochs=2)
    )
    assert found == (None, "reward broken: broken must be finite, but got nan.")


def test_what_is_shared_is_computed_before_the_clock_starts():
    calls = []
    shared = SimpleNamespace(
        name="shared",
        is_cost=False,
        prepare=lambda candidate: calls.append("prepare"),
        measure=lambda candidate: calls.append("measure") or 1.0,
    )
    probe_rewards(toy_runner(), RewardPanel([shared]), lora((1,)), Fidelity(train_examples=40, epochs=2))
    assert calls == ["prepare", "measure"]


def test_backbone_without_a_language_model_head_is_refused_before_anything_is_trained(
    settings: SearchSettings, tmp_path: Path
) -> None:
    chosen = settings.with_changes(record=("forgetting",))
    with pytest.raises(UsageError, match=r"reward forgetting cannot be measured: .*has no language-model head"):
        prepare(chosen)
    language_model(tmp_path / "whole", "bert")
    assert "forgetting" in prepare(chosen.with_changes(backbone=str(tmp_path / "whole"))).spec.rewards
