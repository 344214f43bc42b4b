"""The user's files that a search needs, for workers on machines that do not see them: data, and a backbone's folder.

The driver stores them by content hash and notes the hashes with the study; a worker fetches what is noted into its
cache. Names of models on the hub, embedded backbones and the standard library's texts need none of this. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopeft.artifacts import Artifact, ArtifactStore, fetch_bundle, put_bundle, safe_part
from autopeft.exceptions import BackboneError, TaskError, UsageError
from autopeft.study import Study, StudySpec

#: Attribute of a study: the bundles with its files, by what they are for.
INPUTS = "inputs"

#: What a backbone is loaded from: configuration, tokenizer, weights; no optimizer states, no logs.
_MODEL_FILES = (
    "*.json", "*.safetensors", "*.model", "*.jinja", "tokenizer*", "vocab*", "merges.txt", "sentencepiece*",
)  # fmt: skip
_PICKLES = ("pytorch_model*.bin",)
_CODE = ("*.py",)


def ship_inputs(
    spec: StudySpec, artifacts: ArtifactStore, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Store the files that a study reads from this machine; what is stored already is not sent again.

    Args:
        spec: The study.
        artifacts: Where to.
        allow_pickle: Whether pickled weights may be needed.
        trust_remote_code: Whether code beside the backbone may be needed.

    Returns:
        Value of the attribute `INPUTS`, JSON-ready; empty if the study reads no file of this machine.

    Raises:
        UsageError: If a file is not there any more.
        ArtifactError: If it cannot be stored.
    """
    patterns = (*_MODEL_FILES, *(_PICKLES if allow_pickle else ()), *(_CODE if trust_remote_code else ()))
    wanted = {"task": _task_files(spec.task), "backbone": _backbone_files(spec.backbone, patterns)}
    found: dict[str, Any] = {}
    for key, files in wanted.items():
        if files:
            bundle = put_bundle(artifacts, files)
            found[key] = {"sha256": bundle.manifest.sha256, "size": bundle.manifest.size, "bytes": bundle.size}
    return found


def localize(study: Study, artifacts: ArtifactStore | None, *, cache_dir: Path) -> Study:
    """The study with its files on this machine: fetched where they were shipped, else where they always were.

    Args:
        study: As it was stored.
        artifacts: Where from; None if this machine knows no such place.
        cache_dir: Folder below which fetched files are kept.

    Returns:
        The study; only where its data and backbone are differs.

    Raises:
        UsageError: If a file is neither here nor was shipped; the message says what to do.
        NotFoundError: If what was shipped is not there.
        ArtifactError: If it cannot be fetched.
    """
    inputs = study.attributes.get(INPUTS) or {}
    spec = study.spec
    task, backbone = dict(spec.task), dict(spec.backbone)
    for key, settings in (("task", task), ("backbone", backbone)):
        folder = _fetched(inputs.get(key), artifacts, cache_dir)
        if folder is not None:
            source = str(settings["source"])
            settings["source"] = str(folder / _inner(key, settings, source))
        elif Path(str(settings["source"])).is_absolute() and not Path(settings["source"]).exists():
            raise UsageError(_missing(key, settings, was_shipped=key in inputs))
    return replace(study, spec=replace(spec, task=task, backbone=backbone))


def _fetched(entry: Any, artifacts: ArtifactStore | None, cache_dir: Path) -> Path | None:
    if entry is None or artifacts is None:
        return None
    manifest = Artifact(sha256=str(entry["sha256"]), size=int(entry["size"]))
    return fetch_bundle(artifacts, manifest, cache_dir / "inputs")


def _missing(key: str, settings: Mapping[str, Any], *, was_shipped: bool) -> str:
    what = f"the {'data' if key == 'task' else key} at {settings['source']} {'are' if key == 'task' else 'is'}"
    if was_shipped:
        return (
            f"{what} not on this machine, but stored as artifacts, so start the worker with the --artifacts "
            "(or AUTOPEFT_ARTIFACTS) of the search"
        )
    return (
        f"{what} not on this machine; put that there, or start search and workers with --artifacts (or "
        "AUTOPEFT_ARTIFACTS) and a place that all machines reach"
    )


def _task_files(task: Mapping[str, Any]) -> dict[str, Path]:
    source = Path(str(task["source"]))
    if not source.is_absolute():
        return {}
    name = str(task["name"])
    if name.startswith("glue/"):
        # Not the official test files, which nobody reads.
        found = [source / "train.tsv", *sorted(source.glob("dev*.tsv"))]
        files = {f"{source.name}/{item.name}": item for item in found}
    else:
        files = {safe_part(source.name): source}
    for path in files.values():
        if not path.is_file():
            raise TaskError(f"{path} is not there any more; the search was prepared with it.")
    return files


def _backbone_files(backbone: Mapping[str, Any], patterns: tuple[str, ...]) -> dict[str, Path]:
    source = Path(str(backbone["source"]))
    if not source.is_absolute():
        return {}
    name = safe_part(source.name)
    found = {item for pattern in patterns for item in source.glob(pattern) if item.is_file()}
    files = {f"{name}/{safe_part(item.name)}": item for item in sorted(found)}
    if not files:
        raise BackboneError(f"backbone {backbone['name']}: the folder {source} has no files of a model any more.")
    return files


def _inner(key: str, settings: Mapping[str, Any], source: str) -> str:
    """Where in its bundle the source is; GLUE's folders have names that mean something."""
    is_glue = key == "task" and str(settings["name"]).startswith("glue/")
    return Path(source).name if is_glue else safe_part(Path(source).name)
