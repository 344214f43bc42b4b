"""Commands that search: search, plan."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli._environment import (
    artifacts_flag,
    cache_folder,
    data_folder,
    database_flag,
    database_note,
    database_url,
)
from autopeft.cli._interrupt import Interruption
from autopeft.cli._log import LogFormatOption, is_json
from autopeft.cli._options import ArtifactsOption, DatabaseOption, FormatOption
from autopeft.cli._output import OutputFormat, data_console, emit, tell
from autopeft.cli._search_flags import takes_search_flags
from autopeft.cli._source import CaFileOption, ServerOption, TokenFileOption, chosen_server, open_client
from autopeft.cli._workers import workers_module
from autopeft.exceptions import UsageError

if TYPE_CHECKING:
    from autopeft.orchestrate import Pool, PreparedSearch, SearchResult, SearchSettings, WarmStart
    from autopeft.study import Study

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML file with any of these settings; flags win over it."),
]
DetachOption = Annotated[
    bool, typer.Option("--detach", "-d", help="With --server: submit the search, and do not wait for its end.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr, only warnings and errors.")]


@takes_search_flags
def search(
    *,
    config: ConfigOption = None,
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    quiet: QuietOption = False,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    detach: DetachOption = False,
    log_format: LogFormatOption = None,
    format: FormatOption = OutputFormat.HUMAN,
    **flags: Any,
) -> None:
    """Search: train candidates, compare them with the baselines, confirm the best over seeds.

    The same command again resumes, with more --trials it goes on; Ctrl-C loses nothing that had finished.
    With --server a service runs it: your files are uploaded, its progress is shown, and Ctrl-C leaves it running.
    """
    interruption = Interruption()
    with interruption.watched():
        chosen = chosen_server(server, db)
        if chosen is not None:
            from autopeft.cli._remote_search import search_remotely

            base = {} if config is None else read_settings(config)
            with open_client(chosen, token_file, ca_file) as client:
                search_remotely(client, base, flags, is_detached=detach, is_quiet=quiet, format=format)
            return
        if detach:
            raise UsageError("--detach goes with --server.")
        try:
            settings = _settings(config, flags)
        except KeyboardInterrupt:
            # The libraries take seconds to load, and what the command asks for is not known before.
            tell("Interrupted before the search began; the same command starts it.")
            raise typer.Exit(130) from None
        _run(settings, db, interruption, artifacts=artifacts, is_quiet=quiet, format=format)


@takes_search_flags
def plan(
    *,
    config: ConfigOption = None,
    db: DatabaseOption = None,
    format: FormatOption = OutputFormat.HUMAN,
    **flags: Any,
) -> None:
    """Say what a search would do, how long it would take, and how its result can be exported; nothing is stored.

    Takes the flags of `autopeft search`. A few training steps are timed for the estimate.
    """
    _show_plan(_settings(config, flags), db, format)


def _settings(config: Path | None, flags: Mapping[str, Any]) -> SearchSettings:
    """Flags over the configuration file over the defaults; a flag that was not given is None or an empty list."""
    from autopeft.orchestrate import SearchSettings

    given = {key: None if value == [] else value for key, value in flags.items()}
    given["data_dir"] = data_folder(given["data_dir"])
    return SearchSettings.make({} if config is None else read_settings(config), given)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings: plain data without tags and aliases, so that no file unfolds into gigabytes.

    Raises:
        UsageError: If it cannot be read or is not a mapping.
    """
    from autopeft.configuration import read_yaml
    from autopeft.exceptions import SearchSpaceError

    try:
        data, problems = read_yaml(path.expanduser())
    except SearchSpaceError as error:
        raise UsageError(f"--config {path}: {' '.join(error.problems)}") from error
    if problems:
        raise UsageError(f"--config {path}: {' '.join(problems)}")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"--config {path}: must hold settings like `budget: 1%`, but got {type(data).__name__}.")
    return {str(key): value for key, value in data.items()}


def _run(
    settings: SearchSettings,
    db: str | None,
    interruption: Interruption,
    *,
    artifacts: str | None,
    is_quiet: bool,
    format: OutputFormat,
) -> None:
    from autopeft.orchestrate import resume_command

    extra = (*database_flag(db), *artifacts_flag(artifacts))
    command = resume_command(settings, extra)
    try:
        result = _search(settings, db, command, interruption, artifacts=artifacts, extra=extra, is_quiet=is_quiet)
    except KeyboardInterrupt:
        tell(f"Interrupted. Everything that had finished is stored; go on with:\n  {command}")
        _show_note(db)
        raise typer.Exit(130) from None

    from autopeft.cli import _tables
    from autopeft.cli._inspect import knows_unicode
    from autopeft.export import front_document

    width = data_console().width
    emit(
        format,
        lambda: {**front_document(result.study), "stopped_early": result.stopped_early},
        lambda: _tables.front_view(result.study, width=width, is_ascii=not knows_unicode()),
    )
    if result.summary is None:
        tell(f"\nStopped early: {result.stopped_early}. With more time it goes on:\n  {command}")
        _show_note(db)
    elif not is_quiet:
        _tell_next(result, db)


def _search(
    settings: SearchSettings,
    db: str | None,
    command: str,
    interruption: Interruption,
    *,
    artifacts: str | None,
    extra: tuple[str, ...],
    is_quiet: bool,
) -> SearchResult:
    from autopeft.artifacts import open_artifacts
    from autopeft.cli._log_progress import LogProgress
    from autopeft.cli._progress import SearchProgress
    from autopeft.orchestrate import begin_study, prepare, run_search
    from autopeft.store import open_store

    prepared = prepare(settings)
    with open_store(database_url(db)) as store:
        begin_study(settings.warm_start, store, prepared.spec, prepared.space)
        store.set_attribute(prepared.spec.name, "command", command)
        with (
            (LogProgress if is_json() else SearchProgress)(
                is_quiet=is_quiet, before_trial=interruption.check
            ) as progress,
            _pool(settings, database_url(db)) as pool,
        ):
            _show_note(db, progress.message)
            return run_search(
                prepared,
                store,
                progress,
                cache_dir=cache_folder(),
                store_url=store.url,
                command_extra=extra,
                pool=pool,
                artifacts=None if artifacts is None else open_artifacts(artifacts),
            )


@contextmanager
def _pool(settings: SearchSettings, url: str) -> Iterator[Pool | None]:
    """The workers that the search looks after itself; None for every executor but Ray's."""
    if settings.executor != "ray":
        yield None
        return
    # Who starts the search names the code, and the cluster's token lets nobody else name any.
    names_code = any(":" in name for name in (*settings.objectives, *settings.record))
    timeout = {} if settings.trial_timeout_s is None else {"trial_timeout_s": settings.trial_timeout_s}
    chosen = workers_module("settings").WorkerSettings(
        cache_dir=cache_folder(),
        cohort=settings.cohort,
        memory_limit_bytes=settings.memory_limit_bytes,
        **timeout,
        allow_code=names_code or settings.allow_pickle or settings.trust_remote_code,
    )
    with workers_module("pool").ray_pool(
        settings.address,
        url,
        chosen,
        cpus=settings.worker_cpus,
        gpus=settings.worker_gpus,
        limit=settings.workers,
    ) as pool:
        yield pool


def _show_plan(settings: SearchSettings, db: str | None, format: OutputFormat) -> None:
    from rich.text import Text

    from autopeft.cli._progress import plan_document, plan_lines
    from autopeft.orchestrate import load_runner, make_plan, planned_baselines, prepare
    from autopeft.store import mask_url
    from autopeft.study import TrialState

    prepared = prepare(settings)
    url = database_url(db)
    study = _stored_study(url, prepared.spec.name)
    warm_start = _planned_warm_start(url, settings, prepared) if study is None else None
    found = make_plan(
        prepared,
        load_runner(prepared, cache_dir=cache_folder()),
        planned_baselines(prepared),
        n_done=0 if study is None else sum(item.state is not TrialState.WAITING for item in study.trials),
        store_url=mask_url(url),
        command_extra=database_flag(db),
        study=study,
        warm_start=warm_start,
    )
    emit(format, lambda: plan_document(found), lambda: Text("\n".join(plan_lines(found))))
    _show_note(db)


def _planned_warm_start(url: str, settings: SearchSettings, prepared: PreparedSearch) -> WarmStart:
    """What a study that has not begun would begin with."""
    from autopeft.exceptions import NotFoundError
    from autopeft.orchestrate import find_warm_start
    from autopeft.store import open_store

    asked, spec, space = settings.warm_start, prepared.spec, prepared.space
    try:
        store = open_store(url, create=False)
    except NotFoundError:
        return find_warm_start(asked, None, spec, space)
    with store:
        return find_warm_start(asked, store, spec, space)


def _stored_study(url: str, name: str) -> Study | None:
    """The study as far as it has come; None if there is no such study or no database yet."""
    from autopeft.exceptions import NotFoundError
    from autopeft.store import open_store

    try:
        with open_store(url, create=False) as store:
            return store.load_study(name)
    except NotFoundError:
        return None


def _show_note(db: str | None, show: Callable[[str], None] = tell) -> None:
    note = database_note(db)
    if note is not None:
        show(note)


def _tell_next(result: SearchResult, db: str | None) -> None:
    from autopeft.store import mask_url

    name = result.study.spec.name

    def command(*words: str) -> str:
        return "  " + shlex.join(["autopeft", *words, *database_flag(db)])

    if result.stopped_early is not None:
        tell(f"\nStopped early: {result.stopped_early}.")
    tell(f"\nStored as study {name} in {mask_url(database_url(db))}. Next:")
    tell(command("front", name))
    tell(command("report", name, "-o", "report.html"))
    tell(command("export", name, "best", "-o", "adapter"))
    tell(command("dashboard"))
    _show_note(db)
