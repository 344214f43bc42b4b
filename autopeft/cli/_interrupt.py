"""Ctrl-C and polite kills."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


class Interruption:
    """SIGINT and SIGTERM (as from a container's stop), both as `KeyboardInterrupt`.

    Where a signal arrives inside a callback of the garbage collector or of a library, Python would print the exception
    and forget it. What was wanted is therefore remembered, and `check` raises it again; nothing is printed.
    """

    def __init__(self) -> None:
        self._is_wanted = False

    def check(self) -> None:
        """Stop here if a signal has arrived.

        Raises:
            KeyboardInterrupt: If so.
        """
        if self._is_wanted:
            raise KeyboardInterrupt

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Listen to the signals; does nothing outside the main thread, which alone receives them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        printing, sys.unraisablehook = sys.unraisablehook, _without_interrupts(sys.unraisablehook)
        try:
            yield
        finally:
            sys.unraisablehook = printing
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: object) -> None:
        self._is_wanted = True
        raise KeyboardInterrupt


def _without_interrupts(show: Callable[[UnraisableHookArgs], object]) -> Callable[[UnraisableHookArgs], object]:
    def hook(found: UnraisableHookArgs) -> None:
        if not issubclass(found.exc_type, KeyboardInterrupt):
            show(found)

    return hook
