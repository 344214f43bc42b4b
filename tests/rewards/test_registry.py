from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.rewards import REWARDS, find_reward, find_rewards, installed_rewards, known_rewards

CODE = '''
from autopeft.rewards import reward

RAN = []

@reward(direction="maximize", unit="lm")
def shine(candidate):
    """How bright."""
    return 0.25

def bare(candidate):
    return 0.5

@reward(direction="minimize")
def accuracy(candidate):
    return 0.5

@reward(direction="minimize")
def memorization(candidate):
    return 0.5

OTHER = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The current folder, with a module of the user's."""
    (tmp_path / "r_mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def distribution(folder: Path, entries: str) -> None:
    """An installed distribution that names rewards, as pip leaves it."""
    info = folder / "shiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[autopeft.rewards]\n{entries}\n")
    sys.path.append(str(folder))


def test_built_in_is_found_by_name():
    assert find_reward("memorization") is REWARDS["memorization"]


@pytest.mark.parametrize("reference", ["r_mine.py:shine", "r_mine:shine"])
def test_function_is_found_by_reference(folder, reference):
    found = find_reward(reference)
    assert (found.name, found.unit, found.summary) == ("shine", "lm", "How bright.")


def test_installed_distribution_is_found_by_its_entry_point(folder):
    distribution(folder, "shine = r_mine:shine\ndim = r_mine:shine\ngone = r_mine:gone")
    assert {"shine", "dim", "gone"} <= set(installed_rewards())
    # Listing runs nothing.
    assert "r_mine" not in sys.modules
    assert "shine" in known_rewards()
    assert find_reward("shine").unit == "lm"
    with pytest.raises(UsageError, match="entry point dim gives a reward of the name shine"):
        find_reward("dim")
    with pytest.raises(UsageError, match="reward gone: entry point r_mine:gone cannot be loaded"):
        find_reward("gone")


def test_unknown_name_lists_the_known_ones(folder):
    distribution(folder, "shine = r_mine:shine")
    with pytest.raises(UnknownNameError) as error:
        find_reward("memorisation", ["accuracy"])
    words = str(error.value)
    assert "Did you mean memorization" in words
    for name in ("accuracy", "shine", *REWARDS, "package.module:function"):
        assert name in words


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("r_mine.py:bare", r"is a function without a direction; declare it with @autopeft.rewards.reward"),
        ("r_mine.py:OTHER", "is no function, but int"),
    ],
)
def test_what_is_no_reward_is_refused(folder, reference, words):
    with pytest.raises(UsageError, match=words):
        find_reward(reference)


def test_several_are_found_by_the_names_they_are_asked_for_by(folder):
    found = find_rewards(["memorization", "r_mine.py:shine", "memorization"], taken=["accuracy"])
    assert {name: item.name for name, item in found.items()} == {
        "memorization": "memorization",
        "r_mine.py:shine": "shine",
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["r_mine.py:accuracy"], "has the name accuracy, which is taken"),
        (["r_mine.py:memorization"], "has the name memorization, which is taken"),
        (["r_mine.py:shine", "r_mine:shine"], "are rewards of the same name shine"),
    ],
)
def test_names_must_be_free(folder, names, words):
    with pytest.raises(UsageError, match=words):
        find_rewards(names, taken=["accuracy"])


def test_options_are_set_in_their_types():
    found = find_rewards(
        ["memorization", "calibration_error"], {"memorization": {"share": "0.2", "max_examples": "200"}}
    )
    assert found["memorization"].settings() == {"share": 0.2, "max_examples": 200}
    assert REWARDS["memorization"].settings()["share"] == 0.3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"memorization": {"shear": 0.2}}, UnknownNameError, "unknown option of reward memorization 'shear'.*share"),
        ({"memorization": {"share": "much"}}, UsageError, "option memorization.share must be of type float"),
        ({"memorization": {"max_examples": 100.5}}, UsageError, "option memorization.max_examples must be of type int"),
        ({"memorization": {"share": True}}, UsageError, "must be of type float, but got True"),
        ({"memorization": {"share": 0.9}}, UsageError, r"memorization.share must lie in \(0, 0.5\]"),
        ({"robustness": {"share": 0.2}}, UnknownNameError, "unknown reward 'robustness'"),
    ],
)
def test_wrong_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        find_rewards(["memorization"], options)


def test_functions_have_no_options(folder):
    with pytest.raises(UsageError, match="reward shine has no options"):
        find_rewards(["r_mine.py:shine"], {"shine": {"a": 1}})
