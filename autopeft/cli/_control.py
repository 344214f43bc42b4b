"""Commands that stop and resume a search: at a service, or on this machine."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import typer

from autopeft.cli._environment import database_flag
from autopeft.cli._options import (
    DatabaseOption,
    FormatOption,
    StudyArgument,
    find_study,
    open_existing_store,
    study_name,
)
from autopeft.cli._output import OutputFormat, emit, tell
from autopeft.cli._source import CaFileOption, ServerOption, TokenFileOption, chosen_server, open_client
from autopeft.exceptions import MachineError, NotFoundError, UsageError
from autopeft.export import printable

if TYPE_CHECKING:
    from rich.text import Text

    from autopeft.store import DriverLease, SqlStore

_PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.2
#: Words of a stored command after which it runs code that somebody named, ...
_CODE_FLAGS: Final = ("--allow-pickle", "--trust-remote-code", "--config")
_NAMING_FLAGS: Final = ("--objective", "--record")
#: ... or sends data or tokens to a machine that somebody named. Whoever has a Ray cluster can run code on its drivers.
_PLACE_FLAGS: Final = ("--server", "--token-file", "--ca-file", "--artifacts", "--address")


def stop(
    study: StudyArgument = None,
    db: DatabaseOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Stop a search; everything that had finished is stored, and `autopeft resume` goes on.

    With --server the service stops it; else the process on this machine that drives it is asked to end.
    """
    chosen = chosen_server(server, db)
    if chosen is not None:
        _change(chosen, "stop", study, token_file, ca_file, format)
        return
    from autopeft.cli._environment import database_url
    from autopeft.store import open_store

    with open_store(database_url(db), create=False) as store:
        name = study_name(store.list_studies(), study, store.url)
        state = _stop_here(store, name)
    emit(format, lambda: {"study": name, "state": state}, lambda: sentence(f"Study {name} is {state.lower()}."))


def resume(
    study: StudyArgument = None,
    db: DatabaseOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    format: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Go on with a search that was stopped or interrupted.

    With --server the service queues it again; else the command that began it is run again.
    """
    chosen = chosen_server(server, db)
    if chosen is not None:
        _change(chosen, "resume", study, token_file, ca_file, format)
        return
    found = find_study(open_existing_store(db), study)
    words = resume_words(found.attributes.get("command"), found.spec.name)
    if format is not OutputFormat.HUMAN:
        words += ["--format", format.value]
    tell(f"Running: {printable(shlex.join([*words, *database_flag(db)]))}")
    from autopeft.cli._app import app

    # What is shown leaves out a URL with a password.
    place = () if db is None else ("--db", db)
    raise typer.Exit(app([*words[1:], *place], prog_name=words[0], standalone_mode=False) or 0)


def resume_words(command: Any, study: str) -> list[str]:
    """The words of a study's stored command, if running them is harmless, without the database: it was found there.

    Whoever can write to the database can write the command, so it must be a search that names no code and no machine.

    Raises:
        NotFoundError: If there is none.
        UsageError: If it is another command, or names code or a machine.
    """
    if not isinstance(command, str):
        raise NotFoundError(f"study {study} does not know the command that began it; give that command again.")
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words[:2] != ["autopeft", "search"]:
        raise UsageError(f"the stored command of study {study} is no search; type it if you trust it: {command}")
    for flag, value in pairwise([*words[2:], ""]):
        named, equals, joined = flag.partition("=")
        problem = _problem(named, joined if equals else value)
        if problem is not None:
            raise UsageError(f"study {study} {problem}; type it if you trust it:\n  {command}")
    return _without(words, "--db")


def _problem(flag: str, value: str) -> str | None:
    """Why a flag of a stored command is not run unseen; None if it may be."""
    if flag in _CODE_FLAGS or (flag in _NAMING_FLAGS and ":" in value):
        return "runs code that its command names"
    is_here = (flag == "--address" and value == "auto") or (flag == "--artifacts" and "://" not in value)
    return f"uses a machine that its command names ({flag})" if flag in _PLACE_FLAGS and not is_here else None


def _without(words: Sequence[str], flag: str) -> list[str]:
    """The words but for a flag and its value."""
    found = []
    rest = iter(words)
    for word in rest:
        if word == flag:
            next(rest, None)
        elif not word.startswith(f"{flag}="):
            found.append(word)
    return found


def _change(server: str, what: str, study: str | None, token_file: Any, ca_file: Any, format: OutputFormat) -> None:
    """Ask a service to stop or resume a search, and show what it says."""
    from autopeft.cli._client import search_path

    with open_client(server, token_file, ca_file) as client:
        name = study or _latest(client.get("/v1/searches", limit=1)["searches"], client.url)
        document = client.post(search_path(name, what))
        emit(format, lambda: _unversioned(document), lambda: sentence(describe_search(document)))


def describe_search(document: Mapping[str, Any]) -> str:
    """A submitted search in one sentence."""
    place = document.get("queue_position")
    state = str(document["state"]).lower()
    words = f"Study {document['study']} is {state}" + (f", number {place} in the queue" if place else "")
    return f"{words}: {document['message']}" if document.get("message") else f"{words}."


def sentence(text: str) -> Text:
    """Words that are shown as they are, whatever is in them."""
    from rich.text import Text

    return Text(printable(text), overflow="fold")


def _latest(searches: list[dict[str, Any]], url: str) -> str:
    if not searches:
        raise NotFoundError(f"{url} has no search yet; submit one with `autopeft search --server {url}`.")
    return str(searches[0]["study"])


def _unversioned(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "schema_version"}


def _stop_here(
    store: SqlStore, study: str, *, sleep: Callable[[float], None] = time.sleep, patience_s: float = _PATIENCE_S
) -> str:
    """Ask the driver to end, and wait until it has.

    Raises:
        MachineError: If it is on another machine, or does not end.
    """
    from autopeft.orchestrate import is_dead, local_pid

    lease = store.driver(study)
    if lease is None or lease.is_expired or is_dead(lease.holder):
        tell(f"Nothing drives study {study} at this moment.")
        return "STOPPED"
    pid = local_pid(lease.holder)
    if pid is None:
        raise MachineError(
            f"study {study} is driven by {lease.holder} on another machine since {lease.acquired_at:%Y-%m-%d %H:%M} "
            "UTC; stop it there, or with --server where a service drives it."
        )
    os.kill(pid, signal.SIGTERM)
    for _ in range(max(int(patience_s / _POLL_S), 1)):
        if _is_gone(store.driver(study), lease, is_dead):
            return "STOPPED"
        sleep(_POLL_S)
    raise MachineError(f"study {study}: process {pid} was asked to end, but has not within {patience_s:.0f} s.")


def _is_gone(now: DriverLease | None, before: DriverLease, is_dead: Callable[[str], bool]) -> bool:
    return now is None or now.holder != before.holder or is_dead(now.holder)
