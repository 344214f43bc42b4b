"""Reading the user's table: CSV, TSV, JSON lines, Parquet. Every mistake is a `TaskError` that says where it is."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopeft.exceptions import TaskError


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file's rows, by column.

    Args:
        path: The file.
        names: Column names, in the file's order.
        column: Gives a column's values; None where a row lacks one.
        unit: What `numbers` count: ``"line"`` or ``"row"``.
        numbers: Where each row stands in the file, counted from 1.
    """

    path: Path
    names: tuple[str, ...]
    column: Callable[[str], list[Any]]
    unit: str
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, rows: Sequence[int], limit: int = 5) -> str:
        """Name rows for a message: ``"lines 3, 9, 12, ..."``."""
        numbers = [str(self.numbers[row]) for row in rows[:limit]] + (["..."] if len(rows) > limit else [])
        return f"{self.unit}{'s' if len(rows) > 1 else ''} {', '.join(numbers)}"


def read_table(path: Path) -> Table:
    """Read a file by the format its name ends in.

    Raises:
        TaskError: If it is missing, a folder, of another format, unreadable, malformed, or without rows.
    """
    reader = READERS.get(path.suffix.lower())
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in READERS)
        advice = f"name a file in it, such as {path / inside[0]}" if inside else "it holds no file that can be read"
        raise TaskError(f"{path} is a folder, but a task is one file; {advice}.")
    if reader is None:
        raise TaskError(f"{path} cannot be read: its name must end in one of {', '.join(READERS)}.")
    if not path.is_file():
        raise TaskError(f"{path} does not exist (looked in {path.absolute().parent}).")
    try:
        is_empty = path.stat().st_size == 0
        table = None if is_empty else reader(path)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror or error}.") from error
    if table is None or not table.names:
        raise TaskError(f"{path} is empty; it must hold column names and examples.")
    if not len(table):
        raise TaskError(f"{path} holds column names ({', '.join(table.names)}), but no examples.")
    return table


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte order mark.
        position = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, position) + 1
        raise TaskError(
            f"{path} is not UTF-8: byte {position} (line {line}) is 0x{content[position]:02x}. Save the file as UTF-8, "
            f"for example with: iconv -f latin1 -t utf-8."
        ) from None


def _read_csv(path: Path) -> Table | None:
    content = _read_text(path)
    header = content.lstrip().split("\n", 1)[0]
    # Spreadsheets of many countries write semicolons, because their decimal comma is taken.
    delimiter = next((mark for mark in (",", ";", "\t") if mark in header), ",")
    return _parse_delimited(path, content, delimiter, csv.QUOTE_MINIMAL)


def _read_tsv(path: Path) -> Table | None:
    content = _read_text(path)
    literal = _attempt(lambda: _parse_delimited(path, content, "\t", csv.QUOTE_NONE))
    if '"' in content:
        # Some TSV files quote fields; others, GLUE's among them, mean their quotes literally. Read as quoting, one of
        # these fails, or swallows rows where a stray quote happens to find a partner further down.
        quoted = _attempt(lambda: _parse_delimited(path, content, "\t", csv.QUOTE_MINIMAL))
        if isinstance(quoted, Table) and not (isinstance(literal, Table) and len(literal) > len(quoted)):
            return quoted
    if isinstance(literal, TaskError):
        raise literal
    return literal


def _attempt(parse: Callable[[], Table | None]) -> Table | TaskError | None:
    try:
        return parse()
    except TaskError as error:
        return error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters per field."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parse_delimited(path: Path, content: str, delimiter: str, quoting: Any) -> Table | None:
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    records: list[list[str]] = []
    numbers: list[int] = []
    start = 1
    with _long_fields():
        try:
            for record in reader:
                if record and (len(record) > 1 or record[0].strip()):
                    records.append(record)
                    numbers.append(start)
                start = reader.line_num + 1
        except csv.Error as error:
            raise TaskError(
                f"{path}, line {start}: {error}. A field that contains a quote or a line break must be quoted, and "
                f"quotes inside it doubled."
            ) from None
    if not records:
        return None
    names = tuple(name.strip() for name in records[0])
    for record, number in zip(records[1:], numbers[1:], strict=True):
        if len(record) != len(names):
            raise TaskError(
                f"{path}, line {number}: found {len(record)} fields, but the header names {len(names)} "
                f"({', '.join(names)}). A field that contains {delimiter!r} must be quoted."
            )
    rows = records[1:]
    return Table(
        path=path,
        names=names,
        column=lambda name: [row[names.index(name)] for row in rows],
        unit="line",
        numbers=numbers[1:],
    )


def _read_json_lines(path: Path) -> Table | None:
    names: dict[str, None] = {}
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise TaskError(
                f"{path}, line {number}: not valid JSON: {reason}. Every line must be one object."
            ) from None
        if not isinstance(record, dict):
            raise TaskError(
                f"{path}, line {number}: every line must be one JSON object such as "
                f'{{"text": "...", "label": "..."}}, but this one is a {type(record).__name__}.'
            )
        names.update(dict.fromkeys(record))
        records.append(record)
        numbers.append(number)
    return Table(
        path=path,
        names=tuple(names),
        column=lambda name: [record.get(name) for record in records],
        unit="line",
        numbers=numbers,
    )


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise TaskError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from None

    def column(name: str) -> list[Any]:
        try:
            return list(file.read(columns=[name]).column(name).to_pylist())
        except (pyarrow.ArrowException, OSError) as error:
            raise TaskError(f"{path}: column {name!r} cannot be read: {str(error).splitlines()[0]}") from None

    return Table(
        path=path,
        names=tuple(file.schema_arrow.names),
        column=column,
        unit="row",
        numbers=range(1, file.metadata.num_rows + 1),
    )


READERS: dict[str, Callable[[Path], Table | None]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_lines,
    ".parquet": _read_parquet,
}
