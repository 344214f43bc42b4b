from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_tasks_are_listed_with_their_metrics(cli: Cli) -> None:
    from autopeft.tasks import TASKS

    data = json.loads(cli("tasks", "--format", "json").out)
    assert [item["name"] for item in data["tasks"]] == sorted(TASKS)
    topics = next(item for item in data["tasks"] if item["name"] == "stdlib/topics")
    assert topics["metrics"]["accuracy"] == "maximize"
    assert not topics["needs_network"]
    assert "stdlib/topics" in cli("tasks").out


def test_backbones_are_listed_with_architectures(cli: Cli) -> None:
    data = json.loads(cli("backbones", "--format", "json").out)
    assert [item["name"] for item in data["backbones"]] == ["minilm"]
    assert {"bert", "roberta", "distilbert", "electra", "gpt2", "llama"} <= set(data["architectures"])
    text = cli("backbones").out
    assert "minilm" in text
    assert "llama" in text


def test_rewards_are_listed_with_what_they_cost_and_where_they_come_from(cli: Cli) -> None:
    from autopeft.objectives import COSTS
    from autopeft.rewards import REWARDS

    data = json.loads(cli("rewards", "--format", "json").out)
    assert [item["name"] for item in data["rewards"]] == list(REWARDS)
    for item in data["rewards"]:
        assert item["direction"] in ("maximize", "minimize")
        assert item["summary"]
        assert item["cost"]
        assert "arXiv" in item["source"]
    assert [item["name"] for item in data["costs"]] == list(COSTS)
    text = cli("rewards").out
    assert "memorization" in text
    assert "trainable_parameters" in text


def test_spaces_are_listed_and_shown(cli: Cli) -> None:
    names = [item["name"] for item in json.loads(cli("spaces", "list", "--format", "json").out)["spaces"]]
    assert {"default", "autopeft"} <= set(names)
    for name in names:
        space = json.loads(cli("spaces", "show", name, "--format", "json").out)["space"]
        assert space["parameters"]
        assert next(iter(space["parameters"])) in cli("spaces", "show", name).out


def test_every_space_that_comes_along_is_valid(cli: Cli) -> None:
    for item in json.loads(cli("spaces", "list", "--format", "json").out)["spaces"]:
        ran = cli("spaces", "validate", item["path"], "--format", "json")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["is_valid"]


def test_an_invalid_space_lists_every_mistake_with_exit_code_2(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: broken\nparameters: {rank: {type: integr, low: 8, high: 2}}\nmodules: {}\nsurprise: 1\n")
    ran = cli("spaces", "validate", str(path))
    assert ran.code == 2
    assert str(path) in ran.err
    assert ran.err.count("\n  - ") >= 3
    assert "surprise" in ran.err


@pytest.mark.parametrize("command", ["show", "validate"])
def test_an_unknown_space_names_the_nearest(cli: Cli, command: str) -> None:
    ran = cli("spaces", command, "defualt")
    assert ran.code == 2
    assert "Did you mean default" in ran.err
