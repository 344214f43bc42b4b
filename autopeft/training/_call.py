"""One call of the runner: its jobs, what is told about them, and where those that go on begin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from autopeft.study import CurvePoint
from autopeft.training._checkpoint import Checkpoint
from autopeft.training._checkpoints import CheckpointFolder
from autopeft.training._cohort import Candidate, KeepCheckpoint
from autopeft.training._job import Job, PointCallback, ResumeCallback

_logger = logging.getLogger("autopeft.training")


class CallbackError(Exception):
    """Carries what a callback raised past the handling of failed trials."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class RunCall:
    """What `TrialRunner.run` was asked for, and how far it has come.

    Args:
        jobs: What to train.
        on_point: Told about each point once; None for nobody.
        on_resume: Told what jobs that go on have behind them; None for nobody.
        keep_state: Whether the outcomes carry the trained tensors.
        folder: Where checkpoints are; None for none.
        key: Name of a job's checkpoint.
        device: Where tensors are wanted.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        on_point: PointCallback | None,
        on_resume: ResumeCallback | None,
        keep_state: bool,
        folder: CheckpointFolder | None,
        key: Callable[[Job], str],
        device: torch.device,
    ) -> None:
        self.jobs = jobs
        self.keep_state = keep_state
        self._on_point = on_point
        self._folder = folder
        self._keys = {} if folder is None else {index: key(job) for index, job in enumerate(jobs)}
        self._checkpoints: dict[int, Checkpoint] = {}
        self._last: dict[int, tuple[int, bool]] = {}
        if folder is None:
            return
        for index, name in self._keys.items():
            checkpoint = folder.load(name, device)
            if checkpoint is not None:
                self._checkpoints[index] = checkpoint
                stop = on_resume(index, checkpoint.curve) if on_resume is not None else False
                self._last[index] = (checkpoint.step, stop)

    def start(self, index: int) -> int:
        """Steps of a job that are done already."""
        return self._checkpoints[index].step if index in self._checkpoints else 0

    def candidates(self, group: Sequence[int]) -> list[Candidate]:
        """The jobs of a cohort before they are trained."""
        return [Candidate(job=self.jobs[index]) for index in group]

    def checkpoints(self, group: Sequence[int]) -> list[Checkpoint]:
        """Where a cohort goes on; empty if it begins."""
        return [self._checkpoints[index] for index in group if index in self._checkpoints]

    def is_stopped(self, index: int) -> bool:
        """Whether a job was stopped where it would have gone on."""
        return index in self._checkpoints and self._last[index] == (self._checkpoints[index].step, True)

    def forget(self, group: Sequence[int], reason: Exception) -> None:
        """Begin a cohort's jobs again: their checkpoints are of no use."""
        _logger.warning("%s The trial begins again.", reason)
        for index in group:
            self._checkpoints.pop(index, None)
            self.ended(index)

    def ended(self, index: int) -> None:
        """Remove the checkpoint of a job that will not go on."""
        if self._folder is not None:
            self._folder.remove(self._keys[index])

    def keep(self, group: Sequence[int]) -> KeepCheckpoint | None:
        """What writes a cohort's checkpoints; None if nobody wants them."""
        folder = self._folder
        if folder is None:
            return None

        def keep(k: int, seconds: float, make: Callable[[], Checkpoint]) -> None:
            folder.save(self._keys[group[k]], make(), seconds)

        return keep

    def report(self, group: Sequence[int]) -> PointCallback:
        """Passes each point of each job on once, also when a cohort has to be trained again in halves."""

        def report(k: int, point: CurvePoint) -> bool:
            index = group[k]
            step, is_stopped = self._last.get(index, (0, False))
            if point.step <= step:
                return is_stopped and point.step == step
            try:
                stop = self._on_point is not None and self._on_point(index, point)
            except Exception as error:
                raise CallbackError(error) from error
            self._last[index] = (point.step, stop)
            return stop

        return report
