"""Commands about the database itself: db upgrade, db export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli._environment import database_url
from autopeft.cli._options import DatabaseOption, FormatOption, StudyArgument, find_study, open_existing_store
from autopeft.cli._output import OutputFormat, emit, tell, write
from autopeft.exceptions import UsageError

GrantWriteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grant-write",
        metavar="ROLE=FILE",
        show_default=False,
        help="PostgreSQL role that may change rows, with its password in FILE; made if it is not there.",
    ),
]
GrantReadOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grant-read", metavar="ROLE=FILE", show_default=False, help="The same for a role that may only read."
    ),
]


def _role(given: str, flag: str) -> tuple[str, Path]:
    name, equals, file = given.partition("=")
    if not (name and equals and file):
        raise UsageError(f"{flag} is written like autopeft=secrets/db_password, but got {given!r}.")
    return name, Path(file).expanduser()


def upgrade(
    db: DatabaseOption = None,
    grant_write: GrantWriteOption = None,
    grant_read: GrantReadOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Bring the database's schema to this version's; nothing stored is lost.

    With roles, PostgreSQL gets users with no more rights than they need: workers and searches write rows, the dashboard
    reads. Their passwords are the first lines of the files.
    """
    from rich.text import Text

    from autopeft.store import mask_url
    from autopeft.store import upgrade as upgrade_schema
    from autopeft.store._roles import grant

    url = database_url(db)
    roles = [(*_role(item, "--grant-write"), True) for item in grant_write or ()]
    roles += [(*_role(item, "--grant-read"), False) for item in grant_read or ()]
    before, after = upgrade_schema(url)
    for name, file, writes in roles:
        grant(url, name, file, writes=writes)
        tell(f"Role {name} may {'write' if writes else 'read'}.")
    shown = mask_url(url)

    def words() -> Text:
        if before == after:
            return Text(f"The database {shown} is up to date (schema {after}).")
        return Text(f"Upgraded the database {shown} from schema {before or 'none'} to {after}.")

    emit(format, lambda: {"database": shown, "before": before, "after": after}, words)


def export(
    study: StudyArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="JSON file to write, - for stdout: what --warm-start of another search reads.",
        ),
    ] = None,
    optuna: Annotated[
        str | None,
        typer.Option(
            "--optuna",
            metavar="STORAGE",
            show_default=False,
            help="Optuna storage to write to, an SQLAlchemy URL or the path of an SQLite file: "
            "what `optuna-dashboard STORAGE` opens.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", show_default=False, help="Name of the Optuna study. Default: the study's own."),
    ] = None,
    db: DatabaseOption = None,
) -> None:
    """Write a study, all its trials and all that is known of them, to a JSON file or an Optuna storage."""
    if (output is None) == (optuna is None):
        raise UsageError("say where to: either -o FILE or --optuna STORAGE.")
    if name is not None and optuna is None:
        raise UsageError("--name is the name of an Optuna study; it needs --optuna STORAGE.")
    found = find_study(open_existing_store(db), study)
    if optuna is not None:
        from autopeft.integrations.optuna import export_study
        from autopeft.store import mask_url

        count = export_study(found, optuna, name=name)
        tell(f"Wrote study {found.spec.name} with {count} trials.")
        write(f"{mask_url(optuna)}\n")
        return

    from autopeft.cli._deliver import write_file
    from autopeft.store import archive_study

    text = json.dumps(archive_study(found), ensure_ascii=False, allow_nan=False) + "\n"
    if output is None or str(output) == "-":
        write(text)
        return
    target = output.expanduser()
    write_file(target, text)
    tell(f"Wrote study {found.spec.name} with {len(found.trials)} trials ({len(text.encode()) / 1024:.0f} KiB).")
    write(f"{target}\n")
