"""What autopeft's own loggers say, shown on stderr while a command runs; nothing is configured by importing."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Final

import typer

from autopeft.cli._output import tell, told_to

#: Names the format where no flag does.
FORMAT_VARIABLE: Final = "AUTOPEFT_LOG_FORMAT"
#: Loggers whose records are shown in JSON.
_OURS: Final = ("autopeft", "uvicorn")
#: What every record has; whatever else one has was given to it by who logged it.
_ORDINARY: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "where",
    "color_message",
}


class LogFormat(StrEnum):
    """How progress, messages and logs are written to stderr."""

    TEXT = "text"
    JSON = "json"


#: `run` reads it before anything is told, so that mistakes in the other flags are told in this format too.
LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        envvar=FORMAT_VARIABLE,
        show_default=False,
        help="Of everything on stderr: text for people, or JSON lines with study and trial. Default: text.",
    ),
]


def wanted_format(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> LogFormat:
    """The format that a command line asks for; Typer tells of one that is not known."""
    given = environment.get(FORMAT_VARIABLE, "")
    for word, following in pairwise([*words, ""]):
        if word == "--log-format":
            given = following
        elif word.startswith("--log-format="):
            given = word.partition("=")[2]
    return LogFormat.JSON if given == LogFormat.JSON.value else LogFormat.TEXT


def is_json() -> bool:
    """Whether everything on stderr is JSON lines at this moment."""
    return any(isinstance(item, _JsonHandler) for item in logging.getLogger(_OURS[0]).handlers)


@contextmanager
def warnings_shown(format: LogFormat = LogFormat.TEXT) -> Iterator[None]:
    """Show what is worth it on stderr as long as the block runs.

    As text that is every warning of the ``autopeft`` loggers, once, on a line of its own. As JSON it is every record of
    theirs from INFO on, and every message of the command line, one object a line.

    Args:
        format: How.
    """
    with ExitStack() as stack:
        if format is LogFormat.JSON:
            for name in _OURS:
                stack.enter_context(_handled(name, _JsonHandler(), logging.INFO))
            stack.enter_context(told_to(_tell_record))
        else:
            stack.enter_context(_handled(_OURS[0], _Teller(logging.WARNING), None))
        yield


@contextmanager
def records_shown(*names: str) -> Iterator[None]:
    """Show every record of some loggers from INFO on, with time, study and trial: for commands that run for days.

    Args:
        names: Of the loggers.
    """
    with ExitStack() as stack:
        # In JSON all of them are shown already.
        for name in () if is_json() else names:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(where)s%(message)s"))
            stack.enter_context(_handled(name, handler, logging.INFO))
        yield


@contextmanager
def _handled(name: str, handler: logging.Handler, level: int | None) -> Iterator[None]:
    """Give a logger a handler for a while; a level of None leaves the logger's own."""
    logger = logging.getLogger(name)
    before = (logger.propagate, logger.level)
    logger.addHandler(handler)
    # A handler that a library gave the root logger would show every line again.
    logger.propagate = False
    if level is not None:
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.propagate = before[0]
        logger.setLevel(before[1])
        logger.removeHandler(handler)


class _Teller(logging.Handler):
    """Tells each text once: what holds for every trial is said by every trial."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"
            if text not in self._told:
                self._told.add(text)
                # The live bar redirects sys.stderr, so the line appears above it.
                tell(text)
        except Exception:
            self.handleError(record)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        study = getattr(record, "study", None)
        record.where = "" if study is None else f"[{study}] "
        return super().format(record)


class _JsonHandler(logging.Handler):
    """Writes a record as one line of JSON; whatever was given to it as ``extra`` is a key of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(json_line(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def json_line(record: logging.LogRecord) -> str:
    """A record as JSON, without line breaks."""
    document: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    extra = {key: value for key, value in vars(record).items() if key not in _ORDINARY and not key.startswith("_")}
    document |= {key: value for key, value in extra.items() if key not in document}
    if record.exc_info and record.exc_info[0] is not None:
        document["exception"] = logging.Formatter().formatException(record.exc_info)
    # Surrogates stand for bytes of file names that are no text.
    return json.dumps(document, default=str, ensure_ascii=True)


def _tell_record(text: str) -> None:
    """A message of the command line as a record; what it starts with says how bad it is."""
    word = text.partition(":")[0].lower()
    level = {"error": logging.ERROR, "warning": logging.WARNING}.get(word, logging.INFO)
    logging.getLogger("autopeft.cli").log(level, "%s", text.strip("\n"))
