"""The command line. Everything heavy is imported inside the commands: ``autopeft --help`` answers at once."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autopeft``.

    Args:
        arguments: Words after the program's name; None for those of this process.

    Returns:
        The exit code, as ``autopeft --help`` lists them.
    """
    from autopeft.cli._app import run

    return run(arguments)


__all__ = ["main"]
