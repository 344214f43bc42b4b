"""docs/rewards.md: its table is the registry's, its example runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from autopeft.objectives import Direction
from autopeft.rewards import REWARDS, RewardPanel, find_reward
from tests.training.toys import job, lora, toy_runner, toy_task

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")


def test_the_table_has_every_reward_with_its_direction_unit_and_kinds() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
    found = {row[0].strip("`"): row for row in rows if row[0].strip("`") in REWARDS}
    assert list(found) == list(REWARDS)
    for name, row in found.items():
        item = REWARDS[name]
        assert row[1] == ("higher" if item.way is Direction.MAXIMIZE else "lower")
        assert row[2] == item.unit
        assert row[3] == ("both" if len(item.kinds) == 2 else next(iter(item.kinds)))
        # Every paper of the table is one that the reward names.
        assert set(re.findall(r"arxiv.org/abs/([\d.]+\d)", row[6])) <= set(re.findall(r"arXiv ([\d.]+\d)", item.source))


@pytest.mark.parametrize("name", REWARDS)
def test_every_option_stands_there_with_its_default(name: str) -> None:
    for option, value in REWARDS[name].settings().items():
        shown = f"`{option}` {value}" if value != "" else f"`{option}`"
        assert shown in PAGE, (name, option)


def test_the_example_is_short_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(code.splitlines()) < 20
    name = code.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    (reference,) = re.findall(rf"--objective ({re.escape(name)}:\w+)", PAGE)
    before = set(sys.modules)
    found = find_reward(reference)
    runner = toy_runner(task=toy_task(), rewards=RewardPanel([found]))
    (outcome,) = runner.run([job(lora((1,)))])
    for loaded in set(sys.modules) - before:
        del sys.modules[loaded]
    assert outcome.measurements[0].metrics["unused_classes"] in (0.0, 1.0)
    assert (found.unit, found.way) == ("classes", Direction.MINIMIZE)
