"""``autopeft cluster``: what docker compose needs beside its file: secrets, and an environment without any."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli._doctor import Check, Health
from autopeft.cli._options import FormatOption
from autopeft.cli._output import OutputFormat, emit, make_table, tell, write
from autopeft.exceptions import MachineError

#: The user of the image, who reads the secrets.
IMAGE_USER = 10001
#: Secret files, with what each opens.
SECRETS = {
    "db_admin_password": "the database's owner, who changes tables; used by migrations alone",
    "db_password": "the database's user who writes rows",
    "db_reader_password": "the database's user who only reads, for the dashboard",
    "ray_token": "the Ray cluster",
    "api_token": "the API",
}
_RANDOM_BYTES = 32
_FOLDER = "secrets"

FolderArgument = Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder with docker-compose.yml.")]


def init(
    folder: FolderArgument = Path(),
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Make new secrets where there are some. The database keeps its old owner's password."
        ),
    ] = False,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Write the secrets of a cluster, readable by their owner alone, and .env, which names them and holds none.

    What is there already is kept, so it can be called again.
    """
    from rich.text import Text

    target = folder.expanduser().resolve()
    try:
        made, kept = _write_all(target, force=force)
    except OSError as error:
        raise MachineError(
            f"cannot write the secrets below {target}: {error.strerror or error}; give another folder, or change its "
            "permissions."
        ) from error
    for name in kept:
        tell(f"Kept {name}.")
    emit(
        format,
        lambda: {"folder": str(target), "made": made, "kept": kept},
        lambda: Text("\n".join(f"Made {name}." for name in made) or "Nothing to do; --force makes new secrets."),
    )
    tell(f"Next, in {target}: docker compose up --build -d")


def check(folder: FolderArgument = Path(), format: FormatOption = OutputFormat.HUMAN) -> None:
    """Check the secrets and .env of a cluster; exit code 4 if something keeps it from starting."""
    target = folder.expanduser().resolve()
    checks = list(run_checks(target))
    failed = [item for item in checks if item.health is Health.FAILED]
    emit(
        format,
        lambda: {"is_healthy": not failed, "checks": [asdict(item) for item in checks]},
        lambda: make_table(
            f"The cluster in {target}",
            ("check", "state", "detail"),
            [(item.name, item.health.value, item.detail) for item in checks],
        ),
    )
    if failed:
        tell(f"error: {len(failed)} of {len(checks)} checks failed: {', '.join(item.name for item in failed)}.")
        raise typer.Exit(MachineError.exit_code)


def run_checks(folder: Path) -> Iterator[Check]:
    """Look at everything that `init` writes and docker compose reads."""
    composed = folder / "docker-compose.yml"
    if composed.is_file():
        yield Check(name="docker-compose.yml", health=Health.OK, detail=str(composed))
    else:
        detail = f"{composed} is not there; run this in a clone of autopeft's repository, or give its folder"
        yield Check(name="docker-compose.yml", health=Health.FAILED, detail=detail)
    settings = _read_settings(folder / ".env")
    missing = [name for name in _settings(folder) if not settings.get(name)]
    if missing:
        detail = f"{folder / '.env'} does not set {', '.join(missing)}; run: autopeft cluster init {folder}"
        yield Check(name=".env", health=Health.FAILED, detail=detail)
    else:
        yield Check(name=".env", health=Health.OK, detail=f"user {settings['AUTOPEFT_UID']}")
    for name, opens in SECRETS.items():
        problem = _secret_problem(folder / _FOLDER / name, settings.get("AUTOPEFT_UID", ""))
        health = Health.OK if problem is None else Health.FAILED
        yield Check(name=name, health=health, detail=problem or f"opens {opens}")


def _write_all(folder: Path, *, force: bool) -> tuple[list[str], list[str]]:
    """Write what is missing, or everything.

    Returns:
        What was made, and what was kept.
    """
    user, group = _owner()
    inner = folder / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    inner.mkdir(mode=0o700, exist_ok=True)
    contents = {f"{_FOLDER}/{name}": f"{secrets.token_hex(_RANDOM_BYTES)}\n" for name in SECRETS}
    contents[".env"] = "".join(f"{name}={value}\n" for name, value in _settings(folder).items())
    made: list[str] = []
    for name, text in contents.items():
        is_secret = name != ".env"
        if _write(folder / name, text, owner=(user, group) if is_secret else None, force=force and is_secret):
            made.append(name)
    return made, [name for name in contents if name not in made]


def _write(path: Path, text: str, *, owner: tuple[int, int] | None, force: bool) -> bool:
    """Write a file that nobody else may read at any moment, unless it is there.

    Returns:
        Whether it was written.
    """
    if not force and path.exists():
        return False
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if owner is not None and os.geteuid() == 0:
                os.fchown(handle, *owner)
        if force:
            unfinished.replace(path)
        else:
            try:
                # Fails where another process was faster; its secret is in use already.
                os.link(unfinished, path)
            except FileExistsError:
                return False
        return True
    finally:
        unfinished.unlink(missing_ok=True)


def _owner() -> tuple[int, int]:
    """Who the containers run as: root hands its files to the image's user, others can only keep theirs."""
    return (IMAGE_USER, IMAGE_USER) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def _settings(folder: Path) -> dict[str, str]:
    user, group = _owner()
    return {"AUTOPEFT_SECRETS": f"./{_FOLDER}", "AUTOPEFT_UID": str(user), "AUTOPEFT_GID": str(group)}


def _read_settings(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _secret_problem(path: Path, user: str) -> str | None:
    """Why a secret cannot be used; None if it can."""
    repair = f"run: autopeft cluster init {path.parents[1]}"
    try:
        status = path.stat()
        is_empty = status.st_size == 0
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); {repair}"
    if is_empty:
        return f"{path} is empty; remove it and {repair}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"{path} may be read by others; run: chmod 600 {path}"
    if user.isdecimal() and status.st_uid != int(user):
        return f"{path} belongs to user {status.st_uid}, but the containers run as {user}; run: chown {user} {path}"
    return None


def print_token(folder: FolderArgument = Path()) -> None:
    """Write the API's token to stdout, for the environment of a client."""
    path = folder.expanduser().resolve() / _FOLDER / "api_token"
    try:
        write(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MachineError(f"cannot read {path} ({error.strerror}); run: autopeft cluster init") from error
