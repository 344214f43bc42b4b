"""Reads an uploaded file with little memory and time: whatever it does to its reader, it does it to this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

from autopeft.exceptions import UsageError

#: Address space and processor time of the check.
MAX_MEMORY_BYTES: Final = 4 * 2**30
MAX_CPU_S: Final = 60
#: A table's size once unpacked, as a multiple of what a file may have packed.
MAX_UNPACKED_BYTES: Final = 2 * 2**30


def check(path: Path, name: str) -> None:
    """Read a file as a search would.

    Raises:
        UsageError: If it cannot be read.
    """
    suffix = Path(name).suffix.lower()
    if suffix in (".yaml", ".yml"):
        from autopeft.configuration import load_search_space

        load_search_space(path)
    elif suffix != ".json" or not _is_study(path):
        _check_table(path, suffix)


def _is_study(path: Path) -> bool:
    """Whether a file is a study that `autopeft db export` wrote; what is not may still be a table."""
    from autopeft.store import read_archive

    try:
        read_archive(path)
    except UsageError:
        return False
    return True


def _check_table(path: Path, suffix: str) -> None:
    from autopeft.tasks import read_table

    if suffix == ".parquet":
        import pyarrow.parquet

        try:
            metadata = pyarrow.parquet.read_metadata(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UsageError(f"is not a Parquet file: {str(error).splitlines()[0]}") from None
        unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if unpacked > MAX_UNPACKED_BYTES:
            raise UsageError(f"unpacks to {unpacked:,} bytes, but at most {MAX_UNPACKED_BYTES:,} are allowed.")
    table = read_table(path)
    for column in table.names:
        table.column(column)


def main(arguments: list[str]) -> int:
    """Check a file; says what is wrong on stdout and gives 2, or 0."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        check(Path(arguments[0]), arguments[1])
    except UsageError as error:
        sys.stdout.write(str(error)[:2000])
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
