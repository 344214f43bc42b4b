"""Options that several commands share, and what they lead to: a store, a study, a trial."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli._environment import database_url
from autopeft.cli._output import OutputFormat
from autopeft.exceptions import NotFoundError

if TYPE_CHECKING:
    from autopeft.cli._source import StudySource
    from autopeft.store import StudySummary, TrialStore
    from autopeft.study import Study, Trial

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar="AUTOPEFT_DB",
        metavar="URL",
        show_default=False,
        help="Database: an SQLAlchemy URL or the path of an SQLite file. "
        "Default: autopeft.db in $AUTOPEFT_HOME, else in the user's data folder (`autopeft doctor` shows it).",
    ),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        envvar="AUTOPEFT_ARTIFACTS",
        metavar="PLACE",
        show_default=False,
        help="Folder or URL (s3://BUCKET/FOLDER) of files that machines share: your data and a backbone folder go "
        "there for workers that do not see them. Default: none, workers see this machine's files.",
    ),
]
FormatOption = Annotated[
    OutputFormat, typer.Option("--format", "-f", help="Tables for people, or JSON with a schema version.")
]


def open_existing_store(url: str | None) -> TrialStore:
    """Open a database that is only read, so one that is not there is not made.

    Raises:
        NotFoundError: If nothing was ever stored there.
        StoreError: If it cannot be used.
    """
    from autopeft.store import open_store

    return open_store(database_url(url), create=False)


def find_study(store: StudySource, name: str | None) -> Study:
    """Load a study by its name or a unique beginning of it; without a name, the one with the latest activity.

    Raises:
        NotFoundError: If there is none, or the beginning fits several; the message names the nearest.
    """
    return store.load_study(study_name(store.list_studies(), name, store.url))


def study_name(studies: list[StudySummary], name: str | None, where: str) -> str:
    """The full name that is meant; see `find_study`."""
    if not studies:
        raise NotFoundError(f"the database {where} has no study yet; start one with `autopeft search`.")
    if name is None:
        return max(studies, key=lambda item: item.last_activity_at).name
    names = [item.name for item in studies]
    if name in names:
        return name
    fitting = [item for item in names if item.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise NotFoundError(f"study {name!r} is not unique: it could be {_listing(fitting)}.")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    suggestion = f"Did you mean {_listing(near)}?" if near else f"There are: {_listing(names)}."
    raise NotFoundError(f"there is no study {name!r} in {where}. {suggestion} See `autopeft status --all`.")


def find_trial(study: Study, which: str) -> Trial:
    """The trial meant by a number, ``best`` (the one to use) or ``knee`` (of the front).

    Raises:
        NotFoundError: If there is no such trial.
    """
    from autopeft.export import StudyResult

    name = study.spec.name
    if which in ("best", "knee"):
        result = StudyResult.of(study)
        trial = result.trial_to_use if which == "best" else result.front.knee()
        if trial is None:
            raise NotFoundError(f"study {name} has no measured search trial within the budget yet, so no {which} one.")
        return trial
    found = next((item for item in study.trials if str(item.number) == which), None)
    if found is None:
        last = len(study.trials) - 1
        there = f"It has trials 0 to {last}." if last >= 0 else "It has no trials yet."
        raise NotFoundError(f"study {name} has no trial {which!r}. {there} Also possible: best, knee.")
    return found


def split_study_and_trial(first: str | None, second: str | None) -> tuple[str | None, str]:
    """Tell ``STUDY TRIAL`` from ``STUDY`` and from ``TRIAL`` alone; a missing trial is the best one."""
    if second is not None:
        return first, second
    if first is not None and (first.isdecimal() or first in ("best", "knee")):
        return None, first
    return first, "best"


def complete_study(context: typer.Context, incomplete: str) -> list[str]:
    """Names of studies for the shell's completion; none if the database cannot be read."""
    try:
        given: Any = context.params.get("db")
        store = open_existing_store(given)
        return [item.name for item in store.list_studies() if item.name.startswith(incomplete)]
    except Exception:
        return []


def _listing(names: list[str]) -> str:
    shown = names[:8]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


StudyArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]",
        show_default=False,
        autocompletion=complete_study,
        help="Name of the study or a unique beginning of it; without it, the one used last.",
    ),
]
