"""The engine: trains what its supervisor tells it to; it knows no database and holds no lease.

It is a process of its own, ``python -m <this module> DESCRIPTOR``, so that whatever a trial does to it (a segmentation
fault, a broken CUDA context, the kernel's out-of-memory killer) ends it alone. It ends when its supervisor does.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from autopeft.exceptions import AutoPeftError
from autopeft.study import CurvePoint, Failure, Study

from .messages import (
    Abort,
    Aborted,
    Ended,
    Ending,
    EngineSettings,
    Open,
    Opened,
    Price,
    Priced,
    Reached,
    Ready,
    Refused,
    Run,
    Started,
    Verdict,
)

_PR_SET_PDEATHSIG = 1


class AbortedRun(BaseException):
    """Ends a run from outside: no `Exception`, so that nothing on the way takes it for a trial's failure."""


class Inbox:
    """Messages from the supervisor, read by a thread, so that an `Abort` is heard in the middle of a run.

    Args:
        connection: To the supervisor; when it closes, this process ends at once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._main = threading.get_ident()
        #: Numbers of runs that are to end.
        self.aborted: set[int] = set()
        threading.Thread(target=self._read, name="autopeft-inbox", daemon=True).start()

    def get(self) -> Any:
        """The next message that is no `Abort`; waits for it."""
        return self._queue.get()

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                # Nobody is left to tell a result; atexit handlers could hang on what the trial left behind.
                os._exit(0)
            if isinstance(message, Abort):
                self.aborted.add(message.run)
                signal.pthread_kill(self._main, signal.SIGUSR1)
            else:
                self._queue.put(message)


class Engine:
    """Keeps the inner loops of a few studies resident and runs trials in them.

    Args:
        connection: To the supervisor.
        settings: What it was started with.
    """

    def __init__(self, connection: Connection, settings: EngineSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._inbox = Inbox(connection)
        self._studies: OrderedDict[str, tuple[Study, Any, Opened]] = OrderedDict()
        self._run: int | None = None
        self._is_sending = False
        signal.signal(signal.SIGUSR1, self._on_signal)

    def serve(self) -> None:
        """Answer the supervisor until it is gone."""
        self._send(Ready(devices=_devices(self._settings)))
        while True:
            message = self._inbox.get()
            if isinstance(message, Open):
                self._send(self._open(message.study))
            elif isinstance(message, Price):
                self._price(message)
            elif isinstance(message, Run):
                self._send(self._train(message))

    def _on_signal(self, _number: int, _frame: object) -> None:
        # Half a message would be the last that the supervisor understands; `_send` looks again behind it.
        if not self._is_sending:
            self._stop_if_aborted()

    def _send(self, message: object) -> None:
        self._is_sending = True
        try:
            self._connection.send(message)
        finally:
            self._is_sending = False
        self._stop_if_aborted()

    def _stop_if_aborted(self) -> None:
        # The signal of a run that has ended meanwhile must not end the next one.
        if self._run in self._inbox.aborted:
            raise AbortedRun

    def _open(self, study: Study) -> Opened | Refused:
        name = study.spec.name
        known = self._studies.get(name)
        if known is not None and known[0] == study:
            self._studies.move_to_end(name)
            return replace(known[2], resident=tuple(self._studies))
        self._studies.pop(name, None)
        while len(self._studies) >= self._settings.resident:
            self._studies.popitem(last=False)
        try:
            found, opened = self._rebuild(study)
        except AutoPeftError as error:
            return Refused(study=name, reason=str(error).rstrip("."))
        except Exception as error:
            # A library's own words for what is missing or does not fit here.
            return Refused(study=name, reason=f"{type(error).__name__}: {error}".rstrip("."))
        self._studies[name] = study, found, opened
        return replace(opened, resident=tuple(self._studies))

    def _rebuild(self, study: Study) -> tuple[Any, Opened]:
        from autopeft.artifacts import open_artifacts
        from autopeft.orchestrate import study_pruner
        from autopeft.orchestrate._inputs import localize
        from autopeft.orchestrate._rebuild import rebuild_runner

        chosen = self._settings
        artifacts = None if chosen.artifacts is None else open_artifacts(chosen.artifacts)
        runner, cohort = rebuild_runner(
            localize(study, artifacts, cache_dir=chosen.cache_dir),
            cache_dir=chosen.cache_dir,
            device=chosen.device,
            allow_code=chosen.allow_code,
            cohort=chosen.cohort,
        )
        rungs = study_pruner(study.spec, runner.backbone.shapes).rungs
        return runner, Opened(study=study.spec.name, cohort=cohort, rungs=rungs, resident=())

    def _price(self, message: Price) -> None:
        from autopeft.configuration import known_costs
        from autopeft.modules import MODULES

        shapes = self._studies[message.study][1].backbone.shapes
        found = tuple(known_costs(item, shapes, MODULES) for item in message.configurations)
        self._send(Priced(costs=found))

    def _train(self, message: Run) -> Ended | Aborted:
        try:
            self._run = message.run
            self._stop_if_aborted()
            endings = self._endings(message)
            # Behind this line a signal finds no run.
            self._run = None
        except AbortedRun:
            self._run = None
            return Aborted(run=message.run)
        is_failed = any(item.failure is not None for item in endings)
        return Ended(
            run=message.run,
            endings=endings,
            is_broken=is_failed and self._is_device_broken(message.study),
            gpu_memory_used_bytes=_gpu_memory_used(self._studies[message.study][1].backbone.device),
        )

    def _endings(self, message: Run) -> tuple[Ending, ...]:
        from autopeft.configuration import placement_counts
        from autopeft.modules import MODULES
        from autopeft.orchestrate._executor import job_of

        runner = self._studies[message.study][1]
        trials = message.trials
        shapes = runner.backbone.shapes
        counts = tuple(tuple(placement_counts(item.configuration, shapes, MODULES)) for item in trials)
        self._send(Started(placement_parameters=counts))
        try:
            outcomes = runner.run(
                [job_of(item) for item in trials],
                on_point=lambda index, point: self._ask(index, (point,), is_resumed=False),
                on_resume=lambda index, curve: self._ask(index, tuple(curve), is_resumed=True),
            )
        except Exception as error:
            failure = Failure(
                reason="error", message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()
            )
            return tuple(Ending(failure=failure) for _ in trials)
        return tuple(
            Ending(measurements=item.measurements, failure=item.failure, is_stopped_early=item.is_stopped_early)
            for item in outcomes
        )

    def _ask(self, index: int, curve: Sequence[CurvePoint], *, is_resumed: bool) -> bool:
        """Tell the supervisor of a point, and wait for what the pruner says."""
        # A signal that arrived inside a library's callback was swallowed there.
        self._stop_if_aborted()
        self._send(Reached(index=index, curve=tuple(curve), is_resumed=is_resumed))
        while True:
            message = self._inbox.get()
            if isinstance(message, Verdict):
                return message.stop
            if isinstance(message, Price):
                self._price(message)

    def _is_device_broken(self, study: str) -> bool:
        """Whether a failed trial left the GPU's context unusable, as an illegal memory access does."""
        device = self._studies[study][1].backbone.device
        if device.type != "cuda":
            return False
        import torch

        try:
            torch.cuda.synchronize(device)
            float(torch.zeros(1, device=device).sum())
        except RuntimeError:
            return True
        return False


def _gpu_memory_used(device: Any) -> int | None:
    """Bytes that this process has of a GPU, whether tensors are in them or not; None for other devices."""
    if device.type != "cuda":
        return None
    import torch

    return int(torch.cuda.memory_reserved(device))


def _devices(settings: EngineSettings) -> dict[str, Any]:
    """Load torch, take the share of the machine that was granted, and say what there is."""
    import torch

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if not torch.cuda.is_available() or settings.device == "cpu":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    device = torch.device("cuda" if settings.device == "auto" else settings.device)
    if settings.gpu_share < 1:
        torch.cuda.set_per_process_memory_fraction(settings.gpu_share, device)
    found = torch.cuda.get_device_properties(device)
    return {
        "device": str(device),
        "gpu": found.name,
        "gpu_memory_bytes": found.total_memory,
        "gpu_share": settings.gpu_share,
        "threads": torch.get_num_threads(),
    }


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when the thread that started it is gone; a no-op where it cannot.

    Args:
        parent: The process that started this one.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Serve the supervisor at the other end of a file descriptor.

    Args:
        arguments: The descriptor, and the supervisor's process.
    """
    descriptor, parent = (int(word) for word in arguments)
    die_with_parent(parent)
    faulthandler.enable()
    connection = Connection(descriptor)
    settings = connection.recv()
    Engine(connection, settings).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
