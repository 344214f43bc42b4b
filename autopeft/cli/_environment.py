"""Everything taken from environment variables: the only place that reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import platformdirs

_FALSE = ("", "0", "false", "no", "off")


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder of the default database: ``AUTOPEFT_HOME``, else the user's data folder."""
    chosen = environment.get("AUTOPEFT_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("autopeft", appauthor=False))


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder of tokenised data and stored hidden states: below ``AUTOPEFT_HOME`` if set, else the user's cache."""
    if environment.get("AUTOPEFT_HOME"):
        return home_folder(environment) / "cache"
    return Path(platformdirs.user_cache_dir("autopeft", appauthor=False))


def database_url(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The database's URL: what was given, else ``AUTOPEFT_DB``, else SQLite in the home folder.

    Args:
        given: A URL, or the path of an SQLite file.
        environment: Environment variables.
    """
    chosen = given or environment.get("AUTOPEFT_DB") or str(home_folder(environment) / "autopeft.db")
    return chosen if "://" in chosen else f"sqlite:///{Path(chosen).expanduser().resolve()}"


def database_flag(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The words that name the database in a command shown to people; none where the environment names it.

    Commands are stored and printed, so a URL with a password is none of their words: `database_note` tells of it.
    """
    if given is None or given == environment.get("AUTOPEFT_DB") or _has_password(given):
        return ()
    return ("--db", given)


def artifacts_flag(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The words that name the place of artifacts in a command shown to people; none where the environment names it."""
    return () if given is None or given == environment.get("AUTOPEFT_ARTIFACTS") else ("--artifacts", given)


def database_note(given: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """What must be done before a command shown to people finds the database; None if it does as it stands."""
    if given is None or given == environment.get("AUTOPEFT_DB") or not _has_password(given):
        return None
    return "The database's URL holds a password and is left out of commands; first set AUTOPEFT_DB to the URL."


def _has_password(url: str) -> bool:
    from autopeft.store import mask_url

    return mask_url(url) != url


def sqlite_path(url: str) -> Path | None:
    """The file behind an SQLite URL; None for another database or one in memory."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", url)
    return None if match is None or match[1] == ":memory:" else Path(match[1])


def data_folder(given: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Folder with the tasks' files: what was given, else ``AUTOPEFT_DATA_DIR``; None if neither."""
    if given is not None:
        return given.expanduser()
    chosen = environment.get("AUTOPEFT_DATA_DIR")
    return Path(chosen).expanduser() if chosen else None


def is_debug(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``AUTOPEFT_DEBUG`` asks for tracebacks."""
    return environment.get("AUTOPEFT_DEBUG", "").strip().lower() not in _FALSE
