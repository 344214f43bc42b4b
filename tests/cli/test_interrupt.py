from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable

import pytest

from autopeft.cli._interrupt import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_interrupt_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before = [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), Interruption().watched():
        os.kill(os.getpid(), number)
    assert [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)] == before


class Finalized:
    """An exception in a finalizer is lost; Python hands it to `sys.unraisablehook`, which prints it."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.do = do

    def __del__(self) -> None:
        self.do()


def test_a_signal_that_python_swallowed_is_raised_again_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: shown.append(found.exc_type))
    interruption = Interruption()
    with interruption.watched():
        interruption.check()
        Finalized(lambda: os.kill(os.getpid(), signal.SIGINT))
        gc.collect()
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
        assert shown == []
        Finalized(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        gc.collect()
    assert shown == [ZeroDivisionError]
