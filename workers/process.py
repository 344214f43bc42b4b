"""The engine as its supervisor sees it: a child process that is started, watched and ended."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

import psutil

from autopeft.exceptions import AutoPeftError
from autopeft.study import Failure

from .messages import EngineSettings, Ready

#: The engine's own module, under whichever of its two names this package was found.
ENGINE = f"{__package__}.engine"
_LOOK_S = 0.2
_MEMORY_EVERY_S = 0.5
_START_TIMEOUT_S = 300.0
_LOADING_S = 1800.0
_SHOWN_LINES = 60


class EngineLostError(AutoPeftError):
    """The engine is gone, or was ended, before it answered.

    Args:
        failure: Why, as the trial's failure says it.
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


class EngineProcess:
    """A running engine.

    It must be started by a thread that lives as long as the engine is wanted: the kernel ends the engine with it.

    Args:
        settings: What it is started with.
        memory_limit_bytes: It is ended when it and its children hold more memory than this; None for no limit.
        silence_s: It is ended when it gives no sign for so long, > 0.
    """

    def __init__(
        self, settings: EngineSettings, *, memory_limit_bytes: int | None = None, silence_s: float = 3600.0
    ) -> None:
        self._memory_limit = memory_limit_bytes
        self._silence_s = silence_s
        self._lines: collections.deque[str] = collections.deque(maxlen=_SHOWN_LINES)
        self._peak_bytes = 0
        self._look_at = 0.0
        self._connection, self._process = self._launch()
        self._sign_at = time.monotonic()
        self._psutil = psutil.Process(self._process.pid)
        self._relay = threading.Thread(target=self._read_lines, name="autopeft-engine-log", daemon=True)
        self._relay.start()
        self.send(settings)
        #: What the engine can train on.
        self.devices = dict(self._first().devices)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _launch(self) -> tuple[Connection, subprocess.Popen[str]]:
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # our own module, no shell  # nosec B603
                # Without the current folder among the places to import from: it may hold a torch.py.
                [sys.executable, "-P", "-m", ENGINE, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # Ctrl-C in a terminal is for the supervisor, which ends the engine itself.
                start_new_session=True,
            )
        return ours, process

    def _first(self) -> Ready:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            message = self.receive(is_loading=True)
            if isinstance(message, Ready):
                return message
        self.kill()
        raise EngineLostError(Failure(reason="hung", message=f"the engine did not start in {_START_TIMEOUT_S:.0f} s."))

    def _read_lines(self) -> None:
        for line in self._process.stderr or ():
            self._lines.append(line)
            with suppress(OSError, ValueError):
                sys.stderr.write(line)
                sys.stderr.flush()

    def send(self, message: object) -> None:
        """Tell the engine something.

        Raises:
            EngineLostError: If it is gone.
        """
        self._sign_at = time.monotonic()
        try:
            self._connection.send(message)
        except OSError:
            raise EngineLostError(self._post_mortem()) from None

    def receive(self, wait_s: float = _LOOK_S, *, is_loading: bool = False) -> Any:
        """What the engine says; None if it says nothing for a while.

        Args:
            wait_s: Seconds to wait at most, >= 0.
            is_loading: Whether it loads data and weights, perhaps over a network, and trains nothing.

        Raises:
            EngineLostError: If it is gone, gave no sign for too long, or holds too much memory; then it is ended.
        """
        try:
            if self._connection.poll(wait_s):
                message = self._connection.recv()
                self._sign_at = time.monotonic()
                return message
        except (EOFError, OSError):
            raise EngineLostError(self._post_mortem()) from None
        self._check_memory()
        limit_s = max(self._silence_s, _LOADING_S) if is_loading else self._silence_s
        if time.monotonic() - self._sign_at > limit_s:
            self.kill()
            message = f"hung: no sign for {limit_s:g} s{'' if is_loading else ' (--trial-timeout)'}."
            raise EngineLostError(Failure(reason="hung", message=message, traceback=self._tail()))
        return None

    def kill(self) -> None:
        """End the engine at once; harmless if it has ended."""
        with suppress(ProcessLookupError):
            # What a reward's code started belongs to the engine's session.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()
        self._relay.join(timeout=5)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _check_memory(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _MEMORY_EVERY_S
        held = self._memory_bytes()
        self._peak_bytes = max(self._peak_bytes, held)
        if self._memory_limit is not None and held > self._memory_limit:
            self.kill()
            message = f"grew to {_gib(held)}, over the limit of {_gib(self._memory_limit)} (--memory-limit)."
            raise EngineLostError(Failure(reason="out_of_memory", message=message, traceback=self._tail()))

    def _memory_bytes(self) -> int:
        found = 0
        with suppress(psutil.Error):
            processes: Sequence[psutil.Process] = [self._psutil]
            if self._memory_limit is not None:
                processes = [self._psutil, *self._psutil.children(recursive=True)]
            for process in processes:
                with suppress(psutil.Error):
                    found += process.memory_info().rss
        return found

    def _post_mortem(self) -> Failure:
        """Why an engine that closed its pipe is gone."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        if code is not None and code < 0:
            words = f"crashed: signal {-code} ({_signal_name(-code)})"
            if -code == signal.SIGKILL:
                words += f", as the kernel sends it when memory runs out; the engine held {_gib(self._peak_bytes)}"
        else:
            words = f"crashed: its engine ended with exit code {code}"
        return Failure(reason="crashed", message=f"{words}.", traceback=self._tail())

    def _tail(self) -> str | None:
        self._relay.join(timeout=1)
        return "".join(self._lines) or None


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
