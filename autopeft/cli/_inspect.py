"""Commands that read a study: status, trials, front, show."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from autopeft.cli._options import (
    DatabaseOption,
    FormatOption,
    StudyArgument,
    find_study,
    find_trial,
    split_study_and_trial,
    study_name,
)
from autopeft.cli._output import OutputFormat, data_console, emit
from autopeft.cli._source import CaFileOption, ServerOption, TokenFileOption, open_studies
from autopeft.exceptions import UnknownNameError


def status(
    study: StudyArgument = None,
    all_studies: Annotated[bool, typer.Option("--all", help="List every study of the database instead.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it until the search has ended, or Ctrl-C.")
    ] = False,
    interval: Annotated[
        str, typer.Option("--interval", metavar="DURATION", help="Between two looks of --watch: 2s, 1m.")
    ] = "2s",
    db: DatabaseOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Show where a search stands: counts, best trial so far, last activity."""
    from autopeft.cli._watch import StatusView, watch_status

    store = open_studies(db, server, token_file, ca_file)
    view = StatusView(store, None if all_studies else study_name(store.list_studies(), study, store.url))
    if watch:
        watch_status(view, format, interval)
        return
    view.refresh()
    emit(format, view.document, view.human)


def trials(
    study: StudyArgument = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Only search, baseline or confirmation trials.", show_default=False)
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", help="Only WAITING, RUNNING, COMPLETE, PRUNED or FAILED ones.", show_default=False),
    ] = None,
    db: DatabaseOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """List a study's trials, baselines and confirmations included."""
    from autopeft.cli import _tables
    from autopeft.export import trials_document
    from autopeft.study import TrialKind, TrialState

    kinds, states = [item.value for item in TrialKind], [item.value for item in TrialState]
    if kind is not None and kind not in kinds:
        raise UnknownNameError("kind", kind, kinds)
    if state is not None and state.upper() not in states:
        raise UnknownNameError("state", state, states)
    found = find_study(open_studies(db, server, token_file, ca_file), study)
    chosen = [
        item
        for item in found.trials
        if (kind is None or item.kind.value == kind) and (state is None or item.state.value == state.upper())
    ]
    emit(
        format,
        lambda: trials_document(found, chosen),
        lambda: _tables.trials_table(found, chosen, f"Trials of {found.spec.name}"),
    )


def front(
    study: StudyArgument = None,
    db: DatabaseOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Show the Pareto front: quality against trainable parameters, with baselines and budget."""
    from autopeft.cli import _tables
    from autopeft.export import front_document

    found = find_study(open_studies(db, server, token_file, ca_file), study)
    console = data_console()
    emit(
        format,
        lambda: front_document(found),
        lambda: _tables.front_view(found, width=console.width, is_ascii=not knows_unicode()),
    )


def show(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", show_default=False, help="As in `front`; a trial alone may stand here."),
    ] = None,
    trial: Annotated[
        str | None,
        typer.Argument(metavar="[TRIAL]", show_default=False, help="Number, best or knee; best if left out."),
    ] = None,
    db: DatabaseOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Show everything known of one trial: configuration by layer, results, learning curve, failure."""
    from autopeft.cli import _tables
    from autopeft.export import show_document

    name, which = split_study_and_trial(study, trial)
    found = find_study(open_studies(db, server, token_file, ca_file), name)
    chosen = find_trial(found, which)
    emit(format, lambda: show_document(found, chosen), lambda: _tables.trial_view(found, chosen))


def knows_unicode() -> bool:
    """Whether stdout can show more than ASCII."""
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")
