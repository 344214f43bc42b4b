"""Where output goes: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from autopeft.export._format import printable

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

#: Version of every JSON document of the command line; grows when a key changes its meaning or goes away.
SCHEMA_VERSION = 1

# A pipe has no width; tables in it are as wide as they need.
_PIPE_WIDTH = 400


class OutputFormat(StrEnum):
    """How data are written."""

    HUMAN = "human"
    JSON = "json"


def data_console() -> Console:
    """A console on stdout, wide enough that nothing is cut when it is piped."""
    return _console(stderr=False)


def message_console() -> Console:
    """A console on stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def emit(format: OutputFormat, document: Callable[[], dict[str, Any]], human: Callable[[], RenderableType]) -> None:
    """Write data to stdout in the wanted format.

    Args:
        format: The wanted format.
        document: Builds the JSON document, without its schema version.
        human: Builds what people see.
    """
    if format is OutputFormat.JSON:
        text = json.dumps(
            {"schema_version": SCHEMA_VERSION, **document()}, indent=2, ensure_ascii=False, allow_nan=False
        )
        write(text + "\n")
        return
    console = data_console()
    with console.capture() as capture:
        console.print(human())
    write("\n".join(line.rstrip() for line in capture.get().split("\n")))


def write(text: str) -> None:
    """Write to stdout; a reader that has gone (``| head``) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter complains once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(text: str) -> None:
    """Write a message for people to stderr."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def make_table(
    title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Iterable[int] = ()
) -> Group:
    """A table of plain texts: no markup is read from them, and nothing is cut off.

    Args:
        title: Shown above, left-aligned.
        headers: Column names.
        rows: Cells.
        numeric: Columns aligned to the right and never wrapped.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    right = frozenset(numeric)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(headers):
        table.add_column(Text(name), justify="right" if i in right else "left", no_wrap=i in right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return Group(Text(printable(title), style="bold"), table)
