from __future__ import annotations

import ast
import json
import shlex

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.configuration import Configuration
from autopeft.store import StudyReader
from dashboard.queries import (
    add_roles,
    code_snippet,
    configuration_json,
    configuration_yaml,
    export_command,
    file_name,
    latex_table,
    trials_frame,
)
from tests.dashboard.studies import spec
from tests.export.studies import head_only, mixed_configuration


@pytest.mark.parametrize("configuration", [mixed_configuration(), head_only()])
def test_files_give_the_configuration_back(configuration: Configuration) -> None:
    assert Configuration.from_dict(json.loads(configuration_json(configuration))) == configuration
    assert Configuration.from_dict(yaml.safe_load(configuration_yaml(configuration))) == configuration


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_the_command_names_the_study_whatever_it_is_called(name: str) -> None:
    """Oracle: the shell's own way of splitting."""
    assert shlex.split(export_command(name, 12)) == ["autopeft", "export", name, "12", "-o", "adapter"]


def test_the_command_can_ask_for_a_form() -> None:
    assert export_command("s", 3, "merged") == "autopeft export s 3 --as merged -o adapter"


@pytest.mark.parametrize("library", ["peft", "transformers"])
def test_snippets_are_python(library: str) -> None:
    text = code_snippet(spec(task={"name": "t", "label_names": ["a", "b", "c"]}), library)
    ast.parse(text)
    assert ("num_labels=3" in text) == (library == "peft")
    assert "num_labels=1" in code_snippet(spec(), "peft")


def test_the_latex_table_has_a_line_per_trial_cheapest_first(full_url: str) -> None:
    with StudyReader(full_url) as reader:
        frame = add_roles(trials_frame(reader, "study", ["accuracy"]), spec())
    rows = frame[frame["role"].isin(["front", "baseline"])]
    lines = latex_table(rows, spec(), {2: "lora_1 & 50 % $x$ \\input{evil}"}).splitlines()
    body = [line for line in lines if line.endswith(r" \\")][1:]
    assert [line.split(" & ")[0] for line in body] == ["0", "2", "3", "5", "1"]
    assert all(line.count(" & ") == 3 for line in body)
    assert r"lora\_1 \& 50 \% \$x\$ \textbackslash{}input\{evil\}" in body[1]
    assert lines.count(r"\begin{tabular}{rlrr}") == 1


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_file_names_are_plain(name: str) -> None:
    found = file_name(name, "trials.csv")
    assert found.endswith("-trials.csv")
    assert found.isascii()
    assert not set(found) & set('/\\:*?"<>| ')
    assert not found.startswith((".", "-"))
