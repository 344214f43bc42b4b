"""Every packaged search space is searched to a front through the real command line, and no trial fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autopeft.cli import main
from autopeft.configuration import list_search_spaces
from tests.end_to_end.conftest import write_reviews
from tests.tiny import tiny_folder

SETTINGS = {
    "--task": "reviews.csv",
    "--text-column": "text",
    "--label-column": "label",
    "--backbone": "backbone",
    # Full fine-tuning is among the spaces, and on the tiny backbone a small module is a large share.
    "--budget": "100%",
    "--epochs": "1",
    "--train-examples": "64",
    "--trials": "4",
    "--confirm-top": "1",
    "--seeds": "1",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [item.name for item in list_search_spaces()])
def test_a_space_is_searched_to_a_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    tiny_folder(tmp_path / "backbone", "bert", n_layers=3)
    # memcontrol holds examples of the training split out.
    write_reviews(tmp_path / "reviews.csv", n=240)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOPEFT_HOME", str(tmp_path / "home"))
    flags = [word for pair in {**SETTINGS, "--space": name}.items() for word in pair]
    assert main(["search", *flags, "--no-baselines", "--study", name, "-q"]) == 0
    capsys.readouterr()
    assert main(["front", name, "--format", "json"]) == 0
    front = json.loads(capsys.readouterr().out)
    assert front["trials"]
    assert main(["trials", name, "--format", "json"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert {item["state"] for item in trials} == {"COMPLETE"}
    assert sum(item["kind"] == "search" for item in trials) == 4
