"""``autopeft search --server``: hand a search in, and follow it until it ends or the user goes."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from autopeft.cli._control import describe_search, sentence
from autopeft.cli._output import OutputFormat, data_console, emit, tell
from autopeft.exceptions import AutoPeftError, MachineError, UsageError

if TYPE_CHECKING:
    from autopeft.cli._client import ServiceClient

#: Settings that may name a file of the user's, and what its name then ends in.
_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "task": (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"),
    "space": (".yaml", ".yml"),
    "warm_start": (".json",),
}
_POLL_S: Final = 1.0
_ENDS: Final = ("COMPLETE", "FAILED", "STOPPED")


def search_remotely(
    client: ServiceClient,
    base: Mapping[str, Any],
    flags: Mapping[str, Any],
    *,
    is_detached: bool,
    is_quiet: bool,
    format: OutputFormat,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Submit a search, show its progress, and its front at the end.

    Args:
        client: Of the service.
        base: Settings of a configuration file.
        flags: Those of the command line, None where not given; they win.
        is_detached: Do not wait for its end.
        is_quiet: Show no progress.
        format: Of the front.
        sleep: Waits so many seconds.

    Raises:
        AutoPeftError: If the search is refused or fails.
    """
    from autopeft.cli._client import search_path

    given, overrides = _own_settings(base, flags)
    for settings in (given, overrides):
        _upload_files(client, settings, is_quiet=is_quiet)
    document = client.post("/v1/searches", {"settings": given, "overrides": overrides})
    name = str(document["study"])
    if not is_quiet:
        tell(f"Submitted to {client.url}. {describe_search(document)}")
    if is_detached:
        emit(
            format,
            lambda: {key: value for key, value in document.items() if key != "schema_version"},
            lambda: sentence(name),
        )
        return
    try:
        state = _follow(client, name, document, is_quiet=is_quiet, sleep=sleep)
    except KeyboardInterrupt:
        where = shlex.join([name, "--server", client.url])
        tell(f"The search goes on at {client.url}. The same command follows it again; stop it with:")
        tell(f"  autopeft stop {where}")
        raise typer.Exit(130) from None
    _conclude(client, name, state, client.get(search_path(name)), format)


def _own_settings(base: Mapping[str, Any], flags: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is sent: neither the folder of this machine's data, nor what was not given.

    Raises:
        UsageError: If the user asks for a folder of this machine's.
    """
    given = {str(key): value for key, value in base.items()}
    overrides = {key: value for key, value in flags.items() if value is not None and value != []}
    folder = overrides.pop("data_dir", None)
    is_flag = folder is not None and str(folder) != os.environ.get("AUTOPEFT_DATA_DIR")
    if is_flag or given.get("data_dir") or given.get("data-dir"):
        raise UsageError("--data-dir is a folder of this machine; a service has its own: leave the flag out.")
    return given, overrides


def _upload_files(client: ServiceClient, settings: dict[str, Any], *, is_quiet: bool) -> None:
    """Hand in the files that settings name, and name them as the service does."""
    for key, endings in _FILES.items():
        for name in (key, key.replace("_", "-")):
            value = settings.get(name)
            if not isinstance(value, str) or Path(value).suffix.lower() not in endings or value.startswith("upload:"):
                continue
            path = Path(value).expanduser()
            if not is_quiet:
                tell(f"Uploading {path} ...")
            settings[name] = client.upload(path)


def _follow(
    client: ServiceClient,
    name: str,
    document: Mapping[str, Any],
    *,
    is_quiet: bool,
    sleep: Callable[[float], None],
) -> str:
    """Show what the search says until it has ended; a service that is out of reach for a while is asked again.

    Returns:
        The state it ended in.
    """
    from autopeft.cli._client import search_path

    offset, shown, is_lost = 0, describe_search(document), False
    while True:
        try:
            log = client.get(search_path(name, "log"), offset=offset)
            now = log if log["state"] != "QUEUED" else client.get(search_path(name))
        except MachineError as error:
            if not is_lost:
                tell(f"warning: {error} Asking again until it answers; Ctrl-C leaves the search running.")
            is_lost = True
            sleep(_POLL_S)
            continue
        is_lost = False
        if log["text"] and not is_quiet:
            for line in str(log["text"]).rstrip("\n").split("\n"):
                tell(line)
        has_more = int(log["offset"]) > offset and log["text"]
        offset = int(log["offset"])
        if log["state"] in _ENDS and not has_more:
            return str(log["state"])
        if log["state"] == "QUEUED" and not is_quiet and describe_search(now) != shown:
            shown = describe_search(now)
            tell(shown)
        if not has_more:
            sleep(_POLL_S)


def _conclude(client: ServiceClient, name: str, state: str, document: Mapping[str, Any], format: OutputFormat) -> None:
    """Show the front of a search that has ended, or why there is none.

    Raises:
        AutoPeftError: If it failed.
    """
    if state == "FAILED":
        raise AutoPeftError(f"study {name} failed at {client.url}: {document['message'] or 'no reason is known.'}")
    if state == "STOPPED":
        tell(f"Study {name} was stopped; go on with:")
        tell(f"  autopeft resume {shlex.join([name, '--server', client.url])}")
        raise typer.Exit(130)
    from autopeft.cli import _tables
    from autopeft.cli._inspect import knows_unicode
    from autopeft.cli._source import ServiceStudies
    from autopeft.export import front_document

    study = ServiceStudies(client).load_study(name)
    emit(
        format,
        lambda: front_document(study),
        lambda: _tables.front_view(study, width=data_console().width, is_ascii=not knows_unicode()),
    )
