"""A trial becomes a folder: train it again, write it in the first exact form, vouch for it once it loads elsewhere."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from autopeft.backbones import Backbone
from autopeft.exceptions import AutoPeftError, MachineError, TrialError, UsageError
from autopeft.export._card import write_card
from autopeft.export._folder import CARD, file_hashes, open_to_readers, prepare_folder, write_record
from autopeft.export._ladder import Form, choose_form
from autopeft.export._loss import measure_storage
from autopeft.export._reload import SCORE_TOLERANCE, problems, reload
from autopeft.export._storage import FLOAT32
from autopeft.export._trained import TrainedModel
from autopeft.study import REPORT_SPLIT, SEARCH_SPLIT, Study, Trial, TrialState
from autopeft.tasks import REGRESSION, Task
from autopeft.training import Job, Outcome, TrialRunner, token_limit

RECORD_VERSION = 1
_PACKAGES = ("autopeft", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was exported.

    Args:
        folder: Where it is.
        form: Key of `autopeft.export.FORMS`.
        record: What ``autopeft.json`` says.
    """

    folder: Path
    form: str
    record: Mapping[str, Any]


def export_trial(
    study: Study,
    trial: Trial,
    folder: Path,
    *,
    task: Task,
    runner: TrialRunner,
    backbone: Backbone,
    form: str | None = None,
    storage: str = FLOAT32,
    force: bool = False,
    base: str | None = None,
    allow_remote_code: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Export:
    """Train a trial again as it was in the study, and export it.

    It is written in the first form that computes exactly the same (see `FORMS`), loaded in a fresh process, and scored
    there on the report split; the folder says ``"verified": true`` only if that reproduces the score. In a storage of
    fewer bits, that is the score of the rounded adapter, and the record says beside it what rounding lost.

    Args:
        study: The study.
        trial: One of its completed trials.
        folder: Where to write; made if it does not exist.
        task: The study's task.
        runner: Over backbone and task, in the precision of the study.
        backbone: The same backbone in float32, without modules.
        form: Key of `FORMS`; None takes the first exact one that can hold the storage.
        storage: Key of `STORAGES`, for the modules' trained tensors; the task head stays float32.
        force: Replace an earlier export in the folder.
        base: What loaders load the backbone from; None takes its hub id, else its folder.
        allow_remote_code: Whether the backbone runs code of its own.
        tell: Told what happens.

    Raises:
        UsageError: If trial, form, storage or folder cannot be what was asked for.
        TrialError: If it could not be trained again.
        AutoPeftError: If the export could not be verified; the folder stays for inspection.
    """
    max_tokens = token_limit(int(study.spec.training["max_tokens"]), backbone, trial.configuration)
    _check(study, trial, folder, backbone)
    chosen = choose_form(trial.configuration, backbone, max_tokens, form, storage)
    prepare_folder(folder, force=force)
    outcome, state = _retrain(study, trial, runner, tell)
    model = TrainedModel(
        backbone=backbone,
        configuration=trial.configuration,
        state=state,
        label_names=task.label_names,
        max_tokens=max_tokens,
        base=base or backbone.hub_id or str(backbone.folder or backbone.name),
        revision=study.spec.backbone.get("revision") if base is None else None,
        allow_remote_code=allow_remote_code,
        storage=storage,
    )
    record = _record(study, trial, task, model, chosen, outcome)
    with _named_errors(folder):
        _write(record, study, task, model, chosen, folder, tell)
    return Export(folder=folder, form=chosen.name, record=record)


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """What the file system refuses, as the machine's fault."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"cannot write to {folder}: {error.strerror or error}.") from error


def _write(
    record: dict[str, Any],
    study: Study,
    task: Task,
    model: TrainedModel,
    form: Form,
    folder: Path,
    tell: Callable[[str], None],
) -> None:
    """Fill the folder, and complete the record by what a fresh process makes of it."""
    _tell_differences(record["scores"], tell)
    texts, pairs = task.report.texts, task.report.pairs
    reference = model.logits(texts, pairs)
    exact_scores = _score(task, reference)
    if model.storage != FLOAT32:
        reference = model.rounded().logits(texts, pairs)
    record["scores"]["reference"] = _score(task, reference)
    tell(f"Writing {form.description} to {folder}.")
    form.write(model, folder)
    model.save_tokenizer(folder)
    open_to_readers(folder)
    record["files"] = file_hashes(folder)
    write_record(folder, record)
    tell("Loading it in a fresh process.")
    _verify(record, model, form, folder, task, reference)
    record["storage"] = measure_storage(task, model, form, folder, exact_scores, record["scores"]["reloaded"])
    write_record(folder, record)
    write_card(folder / CARD, study, model, form, record)
    if not record["verified"]:
        raise AutoPeftError(
            f"the export in {folder} is not verified: {'; '.join(record['verification']['problems'])}. "
            "The folder stays for inspection; please report this."
        )


def _check(study: Study, trial: Trial, folder: Path, backbone: Backbone) -> None:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        raise UsageError(
            f"trial {trial.number} of {study.spec.name} is {trial.state}, and only measured trials can be exported."
        )
    if backbone.folder is not None and folder.resolve() == backbone.folder.resolve():
        raise UsageError(f"{folder} is the backbone's own folder; give another folder with -o.")


def _retrain(
    study: Study, trial: Trial, runner: TrialRunner, tell: Callable[[str], None]
) -> tuple[Outcome, Mapping[str, Tensor]]:
    tell(f"Training trial {trial.number} again: {trial.configuration.describe()}.")
    draft = trial.draft
    job = Job(
        configuration=draft.configuration,
        seed=draft.seed,
        # Where the search trained on less, what is delivered is trained as its confirmations were.
        fidelity=study.spec.confirm_fidelity or draft.fidelity,
        splits=(SEARCH_SPLIT, REPORT_SPLIT),
    )
    outcome = runner.run([job], keep_state=True)[0]
    if outcome.failure is not None or outcome.state is None:
        reason = "it gave no weights" if outcome.failure is None else outcome.failure.message
        raise TrialError(f"trial {trial.number} could not be trained again: {reason}")
    return outcome, outcome.state


def _training_scores(study: Study, trial: Trial, outcome: Outcome) -> dict[str, Any]:
    """Metrics by where they come from, then by split."""
    stored = {item.split: dict(item.metrics) for item in trial.measurements}
    retrained = {item.split: dict(item.metrics) for item in outcome.measurements}
    return {"stored": stored, "retrained": retrained}


def _differences(scores: Mapping[str, Any]) -> list[str]:
    """Where training again gave another score than the study's."""
    found = []
    for split, metrics in scores["stored"].items():
        for name, value in metrics.items():
            again = scores["retrained"].get(split, {}).get(name)
            if again != value:
                now = "undefined" if again is None else f"{again:.4f}"
                found.append(f"{name} on the {split} split is {now} instead of {value:.4f}")
    return found


def _tell_differences(scores: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    changed = _differences(scores)
    if changed:
        tell(
            f"Note: trained again, {'; '.join(changed)}. Another machine, number of threads or version of a library "
            "rounds differently."
        )


def _precision(outcome: Outcome) -> str | None:
    return outcome.measurements[0].environment.get("precision") if outcome.measurements else None


def _score(task: Task, logits: Tensor) -> dict[str, float]:
    values = logits[:, 0] if task.kind == REGRESSION else logits.argmax(dim=1)
    return task.evaluate(values.double().numpy(), task.report.targets)


def _record(
    study: Study,
    trial: Trial,
    task: Task,
    model: TrainedModel,
    form: Form,
    outcome: Outcome,
) -> dict[str, Any]:
    """What the folder says about itself, before it is verified."""
    spec, draft, backbone = study.spec, trial.draft, model.backbone
    return {
        "record_version": RECORD_VERSION,
        "verified": False,
        "form": form.name,
        "needs": list(form.needs),
        "study": spec.name,
        "trial": trial.number,
        "label": draft.label,
        "fingerprint": draft.configuration.fingerprint,
        "description": draft.configuration.describe(),
        "configuration": draft.configuration.to_dict(),
        "params": None if draft.params is None else dict(draft.params),
        "trainable_parameters": draft.trainable_parameters,
        "head_parameters": sum(value.numel() for value in model.head.values()),
        "metric": spec.objectives[0].name,
        "scores": _training_scores(study, trial, outcome),
        "labels": None if model.label_names is None else list(model.label_names),
        "task": {**task.settings(), "has_pairs": task.report.pairs is not None},
        "training": {
            **spec.training,
            **(spec.confirm_fidelity or draft.fidelity).to_dict(),
            "max_tokens": model.max_tokens,
            "seed": draft.seed,
            "learning_rate": draft.configuration.learning_rate,
            "precision": _precision(outcome),
        },
        "backbone": {
            **spec.backbone,
            "content_hash": backbone.content_hash,
            "loaded_from": model.base,
            "model_kwargs": json.loads(json.dumps(model.model_kwargs)),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _verify(
    record: dict[str, Any], model: TrainedModel, form: Form, folder: Path, task: Task, reference: Tensor
) -> None:
    """Load the export elsewhere, and write into the record what came of it."""
    reloaded = reload(model, form, folder, task.report.texts, task.report.pairs)
    again: dict[str, float] = {}
    difference = None
    logits = reloaded.logits
    if logits is not None and logits.shape == reference.shape and logits.isfinite().all():
        again = _score(task, logits)
        difference = float((logits - reference).abs().max())
    found = problems(reference, reloaded, form, record["scores"]["reference"], again)
    record["scores"]["reloaded"] = again
    record["verification"] = {
        "split": REPORT_SPLIT,
        "n_examples": len(reference),
        "score_tolerance": SCORE_TOLERANCE,
        "largest_output_difference": difference,
        "loaded_with": dict(reloaded.facts.get("versions", {})),
        "problems": found,
    }
    record["verified"] = not found
