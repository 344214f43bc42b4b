"""Oracles: files in the official layouts written here row by row; the official row counts where GLUE is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from autopeft.exceptions import TaskError, UnknownNameError
from autopeft.tasks import Task, load_task
from autopeft.tasks._glue import GLUE
from autopeft.tasks._splits import normalize

#: Header of the official train file, and a row of it made from (number, label).
LAYOUTS: dict[str, tuple[str, Callable[[int, str], str]]] = {
    "cola": ("", lambda n, label: f"gj04\t{label}\t*\tSentence {n}."),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        lambda n, label: (
            f"{n}\t1\t1e\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tPremise {n}.\tHyp {n}.\t{label}\t{label}"
        ),
    ),
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        lambda n, label: f"{label}\t{n}\t{n + 1}\tFirst {n} .\tSecond {n} .",
    ),
    "qnli": ("index\tquestion\tsentence\tlabel", lambda n, label: f"{n}\tWhy {n}?\tBecause {n}.\t{label}"),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        lambda n, label: f"{n}\t1\t2\tHow {n}?\tWhat {n}?\t{label}",
    ),
    "rte": ("index\tsentence1\tsentence2\tlabel", lambda n, label: f"{n}\tText {n}.\tHyp {n}.\t{label}"),
    "sst2": ("sentence\tlabel", lambda n, label: f"film {n} \t{label}"),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        lambda n, label: f"{n}\tnews\tf\t2012\t1\tnone\tnone\tOne {n}.\tTwo {n}.\t{label}",
    ),
    "wnli": ("index\tsentence1\tsentence2\tlabel", lambda n, label: f"{n}\tHe {n}.\tShe {n}.\t{label}"),
}


def labels_of(key: str, n: int) -> list[str]:
    names = GLUE[key].labels
    return (
        [f"{row % 26 / 5:.3f}" for row in range(n)]
        if names is None
        else [list(names)[row % len(names)] for row in range(n)]
    )


def write_glue(folder: Path, key: str, *, n_train: int = 100, n_report: int = 20, ending: str = "\n") -> Path:
    header, row = LAYOUTS[key]
    files = (("train.tsv", 0, n_train), (GLUE[key].report_file, 1000, n_report))
    for name, start, n in files:
        lines = [row(start + number, label) for number, label in enumerate(labels_of(key, n))]
        target = folder / GLUE[key].folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(ending.join(([header] if header else []) + lines) + ending, encoding="utf-8", newline="")
    return folder


def texts_of(task: Task, name: str) -> set[str]:
    split = task.splits[name]
    return {normalize(text) for text in split.texts}


@pytest.mark.parametrize("key", GLUE)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_official_layouts_are_read(key: str, ending: str, tmp_path: Path) -> None:
    task = load_task(f"glue/{key}", data_dir=write_glue(tmp_path, key, ending=ending))
    assert (len(task.train), len(task.search), len(task.report)) == (80, 20, 20)
    assert len(texts_of(task, "train") | texts_of(task, "search") | texts_of(task, "report")) == 120
    _, row = LAYOUTS[key]
    assert task.report.texts[0] in row(1000, "x").split("\t")
    assert (task.report.pairs is None) == (len(GLUE[key].texts) == 1)
    if task.report.pairs is not None:
        assert task.report.pairs[0] in row(1000, "x").split("\t")
        assert task.report.pairs[0] != task.report.texts[0]
    expected = labels_of(key, 20)
    if key == "stsb":
        assert task.report.targets.tolist() == [float(label) for label in expected]
        assert task.n_labels == 1
    else:
        assert task.label_names is not None
        assert [task.label_names[index] for index in task.report.targets[:2]] == [
            GLUE[key].label_names[GLUE[key].labels[label]]
            for label in expected[:2]  # type: ignore[index]
        ]


def test_label_names_follow_the_files() -> None:
    # A name in an official file must get the class of the same name.
    for task in GLUE.values():
        if task.labels is not None and task.label_names is not None:
            assert sorted(task.labels.values()) == list(range(len(task.label_names)))
            assert all(
                name not in task.label_names or task.label_names[index] == name for name, index in task.labels.items()
            )


def test_official_metrics_come_first() -> None:
    primary = {key: task.metrics for key, task in GLUE.items()}
    assert primary["cola"] == ("matthews", "accuracy")
    assert primary["stsb"] == ("pearson", "spearman")
    assert primary["mrpc"] == primary["qqp"] == ("accuracy", "f1")
    assert all(primary[key] == ("accuracy",) for key in ("mnli", "qnli", "rte", "sst2", "wnli"))


def test_quotes_are_literal(tmp_path: Path) -> None:
    write_glue(tmp_path, "sst2", n_train=40)
    lines = ['"unbalanced\t1', 'he said "no" \t0', '""\t1', "line\u2028separator\t0"]
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    task = load_task("glue/sst2", data_dir=tmp_path)
    assert task.report.texts == ('"unbalanced', 'he said "no" ', '""', "line\u2028separator")


def test_search_split_is_seeded_stratified_and_independent_of_the_fraction(tmp_path: Path) -> None:
    write_glue(tmp_path, "sst2", n_train=1000)
    whole = load_task("glue/sst2", data_dir=tmp_path)
    tenth = load_task("glue/sst2", data_dir=tmp_path, train_fraction=0.1)
    assert tenth.search.texts == whole.search.texts
    assert len(whole.search) == 200
    assert len(tenth.train) == 100
    assert tenth.train.texts == whole.train.texts[:100]
    assert abs(int(tenth.train.targets.sum()) - 50) <= 1
    assert abs(int(whole.search.targets.sum()) - 100) <= 1
    assert load_task("glue/sst2", data_dir=tmp_path).content_hash == whole.content_hash
    assert load_task("glue/sst2", data_dir=tmp_path, seed=1).search.texts != whole.search.texts
    assert len(load_task("glue/sst2", data_dir=tmp_path, max_search_examples=50).search) == 50


def test_texts_of_held_out_splits_are_not_trained_on(tmp_path: Path) -> None:
    write_glue(tmp_path, "sst2", n_train=200)
    path = tmp_path / "SST-2" / "train.tsv"
    repeated = path.read_text() + "".join(f"film {1000 + row} \t0\n" for row in range(20))
    path.write_text(repeated + "".join(f"FILM  {row}\t0\n" for row in range(200)))
    task = load_task("glue/sst2", data_dir=tmp_path)
    assert not texts_of(task, "train") & texts_of(task, "search")
    assert not (texts_of(task, "train") | texts_of(task, "search")) & texts_of(task, "report")
    assert len(texts_of(task, "search")) == len(task.search)


def test_broken_rows_of_the_official_qqp_file_are_skipped(tmp_path: Path) -> None:
    write_glue(tmp_path, "qqp")
    path = tmp_path / "QQP" / "train.tsv"
    path.write_text(path.read_text() + "100\t1\t2\tonly one question\n")
    assert len(load_task("glue/qqp", data_dir=tmp_path).train) == 80


def broken(path: Path, content: bytes) -> Path:
    write_glue(path, "rte")
    (path / "RTE" / "dev.tsv").write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\n", r"dev\.tsv, line 2: expected 4 fields, but found 3"),
        (b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n", r"must be one of entailment, not_entailment.*maybe"),
        (b"index\tsentence1\tlabel\n0\ta\tentailment\n", r"no column 'sentence2'"),
        (b"index\tsentence1\tsentence2\tlabel\n", r"holds no examples"),
        (b"", r"no column 'sentence1'"),
        (b"index\tsentence1\tsentence2\tlabel\n0\t\xff\tb\tentailment\n", r"not UTF-8: byte 34"),
    ],
)
def test_malformed_files(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message):
        load_task("glue/rte", data_dir=broken(tmp_path, content))


def test_wrong_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"SST-2/train\.tsv and SST-2/dev\.tsv, but .*nowhere does not exist"):
        load_task("glue/sst2", data_dir=tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(TaskError, match="file is a file"):
        load_task("glue/sst2", data_dir=tmp_path / "file")
    write_glue(tmp_path / "glue", "rte")
    with pytest.raises(TaskError, match=r"has no SST-2/train\.tsv and no SST-2/dev\.tsv; it has RTE/\."):
        load_task("glue/sst2", data_dir=tmp_path / "glue")
    with pytest.raises(TaskError, match=r"Pass its parent: --data-dir .*glue$"):
        load_task("glue/rte", data_dir=tmp_path / "glue" / "RTE")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match="it has nothing"):
        load_task("glue/rte", data_dir=tmp_path / "empty")


def test_without_network_the_message_names_the_way_out() -> None:
    # The suite runs with HF_HUB_OFFLINE=1, so this is the hub client's own refusal.
    with pytest.raises(TaskError, match=r"glue/sst2 could not be loaded.*--data-dir.*SST-2/train\.tsv"):
        load_task("glue/sst2")


@pytest.mark.parametrize("key", ["sst2", "mnli", "stsb"])
def test_hub_and_files_give_the_same_task(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = load_task(f"glue/{key}", data_dir=write_glue(tmp_path, key))
    official = GLUE[key]
    asked = []

    def load_dataset(path: str, name: str, *, split: str) -> Any:
        asked.append((path, name, split))
        file = tmp_path / official.folder / ("train.tsv" if split == "train" else official.report_file)
        header, *rows = [line.split("\t") for line in file.read_text().splitlines()]
        columns: dict[str, list[Any]] = {
            there: [row[header.index(here)] for row in rows]
            for there, here in zip(official.hub_texts, official.texts, strict=True)
        }
        labels = [row[header.index(official.label)] for row in rows]
        columns["label"] = [float(x) if official.labels is None else official.labels[x] for x in labels]
        return datasets.Dataset.from_dict(columns)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = load_task(f"glue/{key}")
    assert hub.content_hash == local.content_hash
    assert hub.source == f"hub:nyu-mll/glue/{key}"
    assert asked == [("nyu-mll/glue", key, "train"), ("nyu-mll/glue", key, official.hub_report)]


def test_the_diagnostic_set_is_no_task() -> None:
    with pytest.raises(UnknownNameError, match="glue/ax"):
        load_task("glue/ax")


GLUE_FOLDER = os.environ.get("AUTOPEFT_TEST_GLUE")
OFFICIAL_SIZES = {
    "cola": (8551, 1043),
    "mrpc": (3668, 408),
    "rte": (2490, 277),
    "sst2": (67349, 872),
    "stsb": (5749, 1500),
    "wnli": (635, 71),
}


@pytest.mark.skipif(GLUE_FOLDER is None, reason="AUTOPEFT_TEST_GLUE does not name a folder with GLUE")
@pytest.mark.parametrize("key", OFFICIAL_SIZES)
def test_real_glue_has_its_published_sizes(key: str) -> None:
    n_train, n_report = OFFICIAL_SIZES[key]
    task = load_task(f"glue/{key}", data_dir=Path(str(GLUE_FOLDER)))
    assert len(task.report) == n_report
    # Some copies of MRPC lack one row.
    assert min(1000, round(0.2 * n_train)) - len(task.search) in (0, 1)
    # All rows but those whose text is held out: few of them.
    assert 0.99 * n_train <= len(task.train) + len(task.search) <= n_train
    pairs = {
        name: set(zip(split.texts, split.pairs or split.texts, strict=True)) for name, split in task.splits.items()
    }
    assert sum(map(len, pairs.values())) == len(set.union(*pairs.values()))


@pytest.mark.skipif(GLUE_FOLDER is None, reason="AUTOPEFT_TEST_GLUE does not name a folder with GLUE")
def test_two_percent_of_real_sst2() -> None:
    task = load_task("glue/sst2", data_dir=Path(str(GLUE_FOLDER)), train_fraction=0.02)
    assert (len(task.train), len(task.search), len(task.report)) == (1347, 1000, 872)
    assert task.default_fidelity().train_examples == 1347
    assert task.report.texts[0] == "it 's a charming and often affecting journey . "
    assert task.report.targets[:2].tolist() == [1, 0]
    assert np.mean(task.report.targets) == pytest.approx(444 / 872)
