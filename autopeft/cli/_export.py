"""Commands that write adapters: export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from autopeft.cli._environment import cache_folder
from autopeft.cli._options import (
    ArtifactsOption,
    DatabaseOption,
    FormatOption,
    find_study,
    find_trial,
    open_existing_store,
    split_study_and_trial,
)
from autopeft.cli._output import OutputFormat, emit, tell
from autopeft.cli._publish import PublishOption, publish_result, require_place

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.", show_default=False)
]
StudyOrTrialArgument = Annotated[
    str | None,
    typer.Argument(metavar="[STUDY]", show_default=False, help="As in `front`; a trial alone may stand here."),
]
TrialArgument = Annotated[
    str | None,
    typer.Argument(metavar="[TRIAL]", show_default=False, help="Number, best or knee; best if left out."),
]
FormNameOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="FORM",
        show_default=False,
        help="lora, merged, native or own; refused where it is not exact. Default: the first that is.",
    ),
]
StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="STORAGE",
        help="float32, bfloat16, int8 or 1bit: how the modules' tensors are stored (the task head stays float32).",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an earlier export in DIR.")]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="ID",
        show_default=False,
        help="What the adapter names as its base model. Default: the backbone's hub id, else its folder.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Torch device, or auto.")]
PickleOption = Annotated[bool, typer.Option("--allow-pickle", help="Load backbone weights that are not safetensors.")]
TrustOption = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the backbone.")]


def export(
    output: OutputOption,
    study: StudyOrTrialArgument = None,
    trial: TrialArgument = None,
    form: FormNameOption = None,
    storage: StorageOption = "float32",
    force: ForceOption = False,
    base: BaseOption = None,
    device: DeviceOption = "auto",
    allow_pickle: PickleOption = False,
    trust_remote_code: TrustOption = False,
    publish: PublishOption = False,
    artifacts: ArtifactsOption = None,
    db: DatabaseOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Write a trial as an adapter or model that stock libraries load, and check that it keeps its score.

    The trial is trained again as it was. The first form that computes exactly the same is written: a plain LoRA adapter
    (lora), merged weights (merged), another native peft adapter (native), or autopeft's own peft type (own). A fresh
    process then loads it and must reproduce the score on the report split within 0.1 points.

    int8 and 1bit need autopeft's own type, bfloat16 an adapter of any; what rounding loses is measured and said.
    """
    from rich.text import Text

    place = require_place(artifacts) if publish else None
    name, which = split_study_and_trial(study, trial)
    found = find_study(open_existing_store(db), name)
    chosen = find_trial(found, which)

    # torch takes seconds; a mistake in the names above is told before.
    from autopeft.export import export_trial
    from autopeft.orchestrate import reopen

    reopened = reopen(
        found,
        chosen,
        cache_dir=cache_folder(),
        device=device,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    target = output.expanduser()
    result = export_trial(
        found,
        chosen,
        target,
        task=reopened.task,
        runner=reopened.runner,
        backbone=reopened.exact_backbone,
        form=form,
        storage=storage,
        force=force,
        base=base,
        allow_remote_code=trust_remote_code,
        tell=tell,
    )
    _tell_scores(result.record)
    if place is not None:
        publish_result(place, found.spec.name, "adapters", target)
    emit(format, lambda: {"folder": str(target), **result.record}, lambda: Text(str(target)))


def _tell_scores(record: Mapping[str, Any]) -> None:
    """Say what the score is here and there, and what rounding lost."""
    from autopeft.export import describe_storage

    metric, scores = record["metric"], record["scores"]
    before, after = scores["reference"].get(metric), scores["reloaded"].get(metric)
    if before is not None and after is not None:
        tell(f"Verified: {metric} {after:.4f} on the report split in a fresh process, {before:.4f} here.")
    lost = describe_storage(record)
    if lost is not None:
        tell(lost)
