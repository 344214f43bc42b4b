"""Where output goes: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from autopeft.export import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

# A pipe has no width; tables in it are as wide as they need.
_PIPE_WIDTH = 400

# Below this a column of prose is a column of single words.
_MIN_TEXT_WIDTH = {"configuration": 24, "description": 24}


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
        write(json_text(document()))
        return
    console = data_console()
    with console.capture() as capture:
        console.print(human())
    write("\n".join(line.rstrip() for line in capture.get().split("\n")))


def json_text(document: dict[str, Any]) -> str:
    """A JSON document as text, with its schema version."""
    from autopeft.export import SCHEMA_VERSION

    whole = {"schema_version": SCHEMA_VERSION, **document}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Half a surrogate pair, of a file name that is no text, cannot be written; JSON knows an escape for it.
    return text.encode("utf-8", "backslashreplace").decode()


def write(text: str) -> None:
    """Write to stdout; a reader that has gone (``| head``) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter complains once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(text: str) -> None:
    """Write a message for people to stderr, or to where `told_to` says."""
    if _listeners:
        _listeners[-1](text)
        return
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


_listeners: list[Callable[[str], None]] = []


@contextmanager
def told_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Give messages for people to a listener instead, as long as the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """A table of plain texts: no markup is read from them, and nothing is cut off.

    Where it does not fit side by side, the optional columns go first; then every row becomes a block of lines.

    Args:
        title: Shown above, left-aligned.
        headers: Column names.
        rows: Cells.
        numeric: Columns aligned to the right and never wrapped.
        optional: Columns left out, in this order, where there is no room.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int]
    optional: tuple[int, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.measure import Measurement
        from rich.text import Text

        yield Text(printable(self.title), style="bold")
        for n_dropped in range(len(self.optional) + 1):
            dropped = self.optional[:n_dropped]
            table = self._table([i for i in range(len(self.headers)) if i not in dropped])
            if Measurement.get(console, options.update(width=10_000), table).minimum <= options.max_width:
                yield table
                return
        for row in self.rows:
            for name, cell in zip(self.headers, row, strict=True):
                if cell:
                    yield Text(f"  {name}: {printable(cell)}", overflow="fold")
            yield Text("")

    def _table(self, columns: Sequence[int]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for i in columns:
            name, right = self.headers[i], i in self.numeric
            table.add_column(
                Text(name), justify="right" if right else "left", no_wrap=right, min_width=_MIN_TEXT_WIDTH.get(name)
            )
        for row in self.rows:
            table.add_row(*(Text(printable(row[i]), overflow="fold") for i in columns))
        return table


def make_table(
    title: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Iterable[int] = (),
    optional: Iterable[int] = (),
) -> DataTable:
    """A `DataTable` of any sequences."""
    return DataTable(
        title=title,
        headers=tuple(headers),
        rows=tuple(tuple(row) for row in rows),
        numeric=frozenset(numeric),
        optional=tuple(optional),
    )
