"""One call from settings to result: load the backbone, measure a probe, drive the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from autopeft.artifacts import ArtifactStore
from autopeft.backbones import Backbone, load_backbone
from autopeft.configuration import Configuration
from autopeft.exceptions import StudyMismatchError
from autopeft.modules import MODULES
from autopeft.orchestrate._baselines import Baseline, baselines
from autopeft.orchestrate._driver import DriverSeat
from autopeft.orchestrate._events import Plan, Progress
from autopeft.orchestrate._executor import Executor, LocalExecutor
from autopeft.orchestrate._fidelity import study_pruner
from autopeft.orchestrate._inputs import INPUTS, ship_inputs
from autopeft.orchestrate._loop import SearchLoop, SearchResult
from autopeft.orchestrate._patient import patient
from autopeft.orchestrate._portable import SETTINGS, VERSIONS, package_versions, settings_to_dict
from autopeft.orchestrate._prepare import PreparedSearch, resume_command
from autopeft.orchestrate._remote import Pool, RemoteExecutor
from autopeft.orchestrate._rewards import probe_rewards
from autopeft.orchestrate._scores import missing_scores, settle_scores
from autopeft.orchestrate._warm_start import WarmStart, begin_study, stored_warm_start
from autopeft.store import TrialStore
from autopeft.study import Study, TrialState
from autopeft.training import (
    CheckpointFolder,
    TrialRunner,
    estimate_score_time,
    select_precision,
    total_memory_bytes,
)


def select_device(name: str) -> str:
    """``"auto"`` is the GPU if there is one, else the CPU; anything else stays."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_runner(prepared: PreparedSearch, *, cache_dir: Path, precision: str | None = None) -> TrialRunner:
    """Load the backbone's weights and make the inner loop resident.

    Args:
        prepared: The resolved search.
        cache_dir: Folder for tokens and hidden states.
        precision: What a study was begun with; None decides it by the settings.
    """
    settings = prepared.settings
    device = select_device(settings.device)
    backbone: Backbone = load_backbone(
        settings.backbone,
        n_labels=prepared.task.n_labels,
        dtype=select_precision(precision or settings.precision, device),
        device=device,
        allow_pickle=settings.allow_pickle,
        trust_remote_code=settings.trust_remote_code,
        revision=settings.revision,
        seed=settings.seed,
    )
    return TrialRunner(
        backbone,
        prepared.task,
        prepared.training,
        cache_dir=cache_dir,
        rewards=prepared.rewards,
        checkpoints=CheckpointFolder(cache_dir / "checkpoints"),
    )


def planned_baselines(prepared: PreparedSearch, *, memory_bytes: int | None = None) -> list[Baseline]:
    """The baselines this search will run; none if they were declined.

    Args:
        prepared: The resolved search.
        memory_bytes: Total memory of the device that the study was begun on; None takes this machine's.
    """
    if not prepared.settings.baselines:
        return []
    memory = memory_bytes or total_memory_bytes(torch.device(select_device(prepared.settings.device)))
    return list(baselines(prepared.space.shapes, MODULES, prepared.spec.budget, memory_bytes=memory))


def make_plan(
    prepared: PreparedSearch,
    runner: TrialRunner,
    planned: Sequence[Baseline],
    *,
    n_done: int,
    store_url: str,
    command_extra: tuple[str, ...] = (),
    study: Study | None = None,
    warm_start: WarmStart | None = None,
) -> Plan:
    """Measure a probe and say what the search will do and about how long it will take.

    The probe trains a few steps of a configuration on all layers: most candidates are cheaper, so the estimate is an
    upper one.

    Args:
        prepared: The resolved search.
        runner: The inner loop.
        planned: Baselines that will be run.
        n_done: Trials of all kinds that are already finished.
        store_url: Where the study is stored, password masked.
        command_extra: Further words of the command that resumes.
        study: The study, as far as it has come; None if it has not begun.
        warm_start: What the study will begin with; None for what it was begun with.
    """
    settings, spec = prepared.settings, prepared.spec
    configuration = probe_configuration(prepared, planned)
    seconds = runner.estimate(configuration, spec.fidelity)
    sources = missing_scores(prepared.space.space.score_sources, study)
    score_time_s = estimate_score_time(runner, sources, runner.probe(configuration)) if sources else 0.0
    reward_time_s, reward_problem = probe_rewards(runner, prepared.rewards, configuration, spec.fidelity)
    n_confirmations = (settings.confirm_top + bool(planned)) * settings.seeds if settings.confirm_top else 0
    begun = warm_start or (None if study is None else stored_warm_start(study))
    n_runs = settings.trials + len(planned) + n_confirmations
    # A confirmation is measured on the report split as well.
    rewards_left_s = (reward_time_s or 0.0) * (max(n_runs - n_done, 0) + min(n_confirmations, max(n_runs - n_done, 0)))
    return Plan(
        spec=spec,
        task_description=prepared.task.description,
        n_parameters_active=len(prepared.space.parameters),
        n_trials=settings.trials,
        n_baselines=len(planned),
        n_confirmations=n_confirmations,
        n_done=n_done,
        seconds_per_trial=seconds,
        estimated_time_s=score_time_s + rewards_left_s + seconds * max(n_runs - n_done, 0),
        export_notes=export_notes(prepared),
        store_url=store_url,
        resume_command=resume_command(settings, command_extra),
        score_sources=sources,
        score_time_s=score_time_s if sources else None,
        rewards=() if prepared.rewards is None else tuple((item.name, item.cost) for item in prepared.rewards.rewards),
        reward_time_s=reward_time_s,
        reward_problem=reward_problem,
        warm_start=() if begun is None else begun.sources,
        rungs=study_pruner(spec, prepared.space.shapes).rungs,
        n_steps=prepared.training.n_steps(spec.fidelity),
    )


def probe_configuration(prepared: PreparedSearch, planned: Sequence[Baseline]) -> Configuration:
    """A configuration on all layers: the uniform LoRA baseline, else the smallest point of the space."""
    for item in planned:
        if item.configuration.module_types == ("lora",):
            return item.configuration
    return prepared.space.smallest()


def export_notes(prepared: PreparedSearch) -> tuple[str, ...]:
    """For each module type of the space, the form in which a winner that uses it alone can be exported."""
    notes = {
        "lora": "a plain LoRA adapter that stock peft loads; mixed with modules that can be merged, merged weights",
        "native": "a native peft adapter when it stands alone, else merged weights or our own peft type",
        "merge": "merged weights that stock transformers loads",
        "own": "our own peft type (needs `pip install autopeft` where it is loaded)",
    }
    types = sorted({rule.type for rule in prepared.space.space.modules})
    return tuple(f"{name}: {notes[MODULES[name].export_class]}" for name in types)


def run_search(
    prepared: PreparedSearch,
    store: TrialStore,
    progress: Progress,
    *,
    cache_dir: Path,
    store_url: str,
    command_extra: tuple[str, ...] = (),
    pool: Pool | None = None,
    artifacts: ArtifactStore | None = None,
) -> SearchResult:
    """Run a search to its end, resuming whatever is already stored.

    While another process drives the study, this one follows along; nothing is loaded before it is its turn.

    Args:
        prepared: The resolved search.
        store: Where the study is.
        progress: Told about everything.
        cache_dir: Folder for tokens, hidden states and checkpoints.
        store_url: Where the study is stored, password masked.
        command_extra: Further words of the command that resumes.
        pool: Workers that are kept for the search, where it does not run its trials itself.
        artifacts: Where workers find the user's files; None if they see the same files as this process.

    Raises:
        StudyMismatchError: If a study of that name has other settings.
        InfeasibleError: If no search trial could be measured.
    """
    begin_study(prepared.settings.warm_start, store, prepared.spec, prepared.space)
    if prepared.settings.executor != "local":
        store = patient(store, progress.message)
    seat = DriverSeat(store, prepared.spec.name, executor=prepared.settings.executor, progress=progress)
    seat.wait()
    try:
        return _drive(
            prepared,
            store,
            progress,
            seat,
            cache_dir=cache_dir,
            store_url=store_url,
            command_extra=command_extra,
            pool=pool,
            artifacts=artifacts,
        )
    finally:
        seat.release()


def _drive(
    prepared: PreparedSearch,
    store: TrialStore,
    progress: Progress,
    seat: DriverSeat,
    *,
    cache_dir: Path,
    store_url: str,
    command_extra: tuple[str, ...],
    pool: Pool | None,
    artifacts: ArtifactStore | None,
) -> SearchResult:
    study = store.load_study(prepared.spec.name)
    store.set_attribute(study.spec.name, SETTINGS, settings_to_dict(prepared.settings))
    store.settle_attribute(study.spec.name, VERSIONS, package_versions())
    if prepared.settings.executor != "local" and artifacts is not None:
        # Before what workers wait for, so that none of them looks for files that are still on their way.
        _ship(prepared, store, artifacts, progress)
    runner = load_runner(prepared, cache_dir=cache_dir, precision=study.attributes.get("precision"))
    memory_bytes = _settle(store, study, runner)
    planned = planned_baselines(prepared, memory_bytes=memory_bytes)
    n_done = sum(item.state is not TrialState.WAITING for item in study.trials)
    plan = make_plan(
        prepared, runner, planned, n_done=n_done, store_url=store_url, command_extra=command_extra, study=study
    )
    store.set_attribute(prepared.spec.name, "probe", {"seconds_per_trial": plan.seconds_per_trial})
    progress.plan(plan)
    scores, spent_s = settle_scores(prepared.space.space.score_sources, store, study, runner, progress)
    prepared = replace(prepared, space=prepared.space.with_scores(scores))
    # Where scores choose the sites, they decide which configuration is the smallest.
    prepared.space.check_budget()
    pruner = study_pruner(prepared.spec, prepared.space.shapes)
    executor: Executor
    if prepared.settings.executor == "local":
        cohort = prepared.settings.cohort or runner.cohort_size(probe_configuration(prepared, planned))
        executor = LocalExecutor(store, runner, progress, cohort=cohort, pruner=pruner)
    else:
        executor = RemoteExecutor(store, progress, name=prepared.settings.executor, pool=pool)
        # The workers have their own; this one's memory is of no more use.
        del runner
    loop = SearchLoop(prepared, store, executor, progress, baselines=planned, spent_s=spent_s, pruner=pruner, seat=seat)
    return loop.run()


def _ship(prepared: PreparedSearch, store: TrialStore, artifacts: ArtifactStore, progress: Progress) -> None:
    """Have the files that only this machine sees where its workers find them."""
    settings = prepared.settings
    inputs = ship_inputs(
        prepared.spec,
        artifacts,
        allow_pickle=settings.allow_pickle,
        trust_remote_code=settings.trust_remote_code,
    )
    if inputs:
        store.set_attribute(prepared.spec.name, INPUTS, inputs)
        size = sum(item["bytes"] for item in inputs.values())
        progress.message(f"Stored {' and '.join(inputs)} ({size / 2**20:.1f} MiB) in {artifacts.url} for the workers.")


def _settle(store: TrialStore, study: Study, runner: TrialRunner) -> int:
    """Fix with the study's first run what only running it shows: precision, the backbone's weights, the memory.

    Returns:
        Total memory of the device that the study was begun on, in bytes.

    Raises:
        StudyMismatchError: If the backbone's weights are others than those the study was begun with.
    """
    name, backbone = study.spec.name, runner.backbone
    begun_with = study.attributes.get("backbone_hash")
    if begun_with not in (None, backbone.content_hash):
        raise StudyMismatchError(
            f"study {name} was begun with other weights of backbone {backbone.name}: content hash "
            f"{begun_with} there, {backbone.content_hash} here. Restore them, or start another study with --study."
        )
    store.set_attribute(name, "backbone_hash", backbone.content_hash)
    memory_bytes = int(study.attributes.get("memory_bytes") or total_memory_bytes(backbone.device))
    store.set_attribute(name, "precision", str(backbone.dtype).removeprefix("torch."))
    store.set_attribute(name, "memory_bytes", memory_bytes)
    return memory_bytes
