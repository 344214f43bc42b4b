"""The training loop: K candidates as one batch of K x B rows, each as if it were alone."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autopeft.exceptions import DivergenceError, OutOfMemoryError
from autopeft.modules import Injection
from autopeft.study import SEARCH_SPLIT, CurvePoint, Failure
from autopeft.training._batches import Batch, BatchPlan, Rows, rung_rows, split_batch
from autopeft.training._checkpoint import Checkpoint, capture, restore
from autopeft.training._costs import PeakMemory, larger, synchronize
from autopeft.training._data import TaskData
from autopeft.training._dynamics._control import CohortDynamics
from autopeft.training._forward import CohortForward, to_predictions
from autopeft.training._freezing_optimizer import FreezingAdamW
from autopeft.training._inputs import ResidentSplit
from autopeft.training._job import Job, PointCallback
from autopeft.training._memory import is_out_of_memory, release_memory
from autopeft.training._optimizer import FlatAdamW
from autopeft.training._schedule import learning_rate_factor
from autopeft.training._settings import TrainingSettings
from autopeft.training._target_scale import TargetScale, head_has_bias

#: After memory ran out, a batch is cut into this many micro-batches for the rest of the run.
_MICRO_BATCHES = 4
#: Padded tokens per evaluation batch, over all candidates: what fills the device without thrashing its caches.
_EVALUATION_TOKENS = {"cpu": 2048, "cuda": 65_536}
#: Losses are looked at every so many steps: a look makes a GPU wait, and costs nothing on a CPU.
_STEPS_PER_LOOK = {"cpu": 1, "cuda": 32}


#: What a checkpoint keeps of a candidate's fields.
_COUNTERS = ("steps", "examples", "tokens", "train_time_s", "wall_time_s")

#: Given a candidate, seconds since its point before, and what makes its checkpoint.
KeepCheckpoint = Callable[[int, float, Callable[[], Checkpoint]], None]


@dataclass(slots=True, kw_only=True)
class Candidate:
    """How far one job has come.

    Args:
        job: What was asked for.
        curve: Points so far.
        failure: Why it ended without a result.
        is_stopped_early: Whether the callback ended it.
        steps: Optimizer steps done.
        examples: Examples seen.
        tokens: Tokens seen, padding excluded.
        train_time_s: Its share of the time spent training.
        wall_time_s: Its share of all time, evaluation included.
        peak_memory_bytes: Of an earlier part of the run; None if there was none, or it was not measured.
    """

    job: Job
    curve: list[CurvePoint] = field(default_factory=list)
    failure: Failure | None = None
    is_stopped_early: bool = False
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    train_time_s: float = 0.0
    wall_time_s: float = 0.0
    peak_memory_bytes: int | None = None

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """Count on from a checkpoint."""
        self.curve = list(checkpoint.curve)
        self.peak_memory_bytes = checkpoint.peak_memory_bytes
        for name in _COUNTERS:
            setattr(self, name, checkpoint.counters[name])

    @property
    def is_active(self) -> bool:
        return self.failure is None and not self.is_stopped_early


class Cohort:
    """Trains injected candidates of one fidelity.

    Args:
        injection: Their modules.
        forward: Their forward pass.
        task: Kind and metrics.
        splits: Resident splits by name.
        settings: Training settings.
        candidates: One per job, in the order of the injection; all measure rungs, or none does.
        on_point: Told about every new point with the candidate's index; True stops it.
        memory: Samples peak memory.
        keep: Given a candidate's index after each of its points but the last, the time since the one before, in
            seconds, and what makes its checkpoint; None keeps none.
    """

    def __init__(
        self,
        *,
        injection: Injection,
        forward: CohortForward,
        task: TaskData,
        splits: dict[str, ResidentSplit],
        settings: TrainingSettings,
        candidates: Sequence[Candidate],
        on_point: PointCallback,
        memory: PeakMemory,
        keep: KeepCheckpoint | None = None,
    ) -> None:
        self._injection = injection
        self._forward = forward
        self._task = task
        self._splits = splits
        self._settings = settings
        self.candidates = candidates
        self._on_point = on_point
        self._memory = memory
        self._keep = keep
        self._device = injection.parameters[0].tensor.device
        is_moving = any(item.job.configuration.dynamics is not None for item in candidates)
        self._optimizer = (FreezingAdamW if is_moving else FlatAdamW)(
            injection.parameters,
            [item.job.configuration.learning_rate for item in candidates],
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
        )
        fidelity = candidates[0].job.fidelity
        train = splits["train"]
        self.plan = BatchPlan(train.lengths, fidelity.train_examples, settings.batch_size)
        #: Of a whole run.
        self.n_steps = self.plan.steps_per_epoch * fidelity.epochs
        self._epoch_points = frozenset(settings.epoch_points(fidelity))
        rungs = settings.rung_steps(fidelity) if candidates[0].job.measures_rungs else ()
        self._points = self._epoch_points | set(rungs)
        self._rung_rows = rung_rows(len(splits[SEARCH_SPLIT]), settings.rung_examples)
        #: Steps that are done already.
        self._start = 0
        injection.begin_training(self.n_steps)
        seeds = [item.job.seed for item in candidates]
        #: None if every candidate updates everything at every step.
        self._dynamics: CohortDynamics | None = None
        if isinstance(self._optimizer, FreezingAdamW):
            self._dynamics = CohortDynamics(injection, self._optimizer, seeds=seeds, n_steps=self.n_steps)
        #: Unit of regression targets; None for classification.
        self.scale: TargetScale | None = None
        if task.kind == "regression":
            targets = train.tokens.targets[: fidelity.train_examples]
            self.scale = TargetScale.of(targets, has_bias=head_has_bias(injection.parameters))
        #: Padded tokens per evaluation batch, over all candidates.
        self.evaluation_tokens = _EVALUATION_TOKENS.get(self._device.type, 2048)
        self._n_parts = 1
        self._losses: list[Tensor] = []
        self._loss_sums = [0.0] * len(candidates)
        self._loss_steps = 0
        self._clock = time.perf_counter()

    @property
    def active(self) -> list[int]:
        """Candidates still in training."""
        return [index for index, item in enumerate(self.candidates) if item.is_active]

    def train(self) -> None:
        """Train until every candidate has finished, failed or been stopped.

        Raises:
            OutOfMemoryError: If memory runs out although batches are cut into micro-batches.
        """
        step = self._start
        self._clock = time.perf_counter()
        n = self.plan.steps_per_epoch
        for epoch in range(self._start // n, self.candidates[0].job.fidelity.epochs):
            seeds = {item.job.seed for item in self.candidates if item.is_active}
            batches = {seed: self.plan.epoch(seed, epoch) for seed in seeds}
            for i in range(step - epoch * n, n):
                active = self.active
                if not active:
                    return
                self.step(step, [batches[self.candidates[k].job.seed][i] for k in active], active)
                step += 1
                if step in self._points:
                    self._look()
                    self._point(step)
                elif step % _STEPS_PER_LOOK.get(self._device.type, 1) == 0:
                    self._look()

    def restore(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Go on from checkpoints, one per candidate and all of the same step, instead of beginning.

        Raises:
            StaleCheckpointError: If one does not fit its candidate.
        """
        self._start = checkpoints[0].step
        self._optimizer.begin_at(self._start)
        for k, checkpoint in enumerate(checkpoints):
            restore(checkpoint, k, self._injection, self._optimizer, self._dynamics)
            self.candidates[k].checkpointed(checkpoint)
        self._drop()

    def checkpoint(self, k: int) -> Checkpoint:
        """A candidate as it is now, at a point of its curve."""
        item = self.candidates[k]
        return capture(
            k,
            self._injection,
            self._optimizer,
            self._dynamics,
            step=item.curve[-1].step,
            curve=tuple(item.curve),
            counters={name: getattr(item, name) for name in _COUNTERS},
            peak_memory_bytes=larger(item.peak_memory_bytes, self._memory.read()),
        )

    def predictions(self, split: str, active: Sequence[int], rows: Rows | None = None) -> Tensor:
        """Outputs of some candidates for every example of a split, shape (k, n, labels), on the CPU.

        Args:
            split: Which one.
            active: The candidates.
            rows: The examples wanted, ascending; None for all. Only theirs are given then.

        Raises:
            OutOfMemoryError: If not even single examples fit.
        """
        self._injection.select(active)
        while True:
            try:
                return self._forward.predict(self._splits[split], active, self.evaluation_tokens, rows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            release_memory(self._device)
            if self.evaluation_tokens <= len(active):
                raise OutOfMemoryError(f"even single examples of the {split} split do not fit into memory.")
            self.evaluation_tokens = max(self.evaluation_tokens // 4, len(active))

    def step(self, step: int, batches: Sequence[Batch], active: Sequence[int]) -> None:
        """One optimizer step; if memory runs out, the same step again in micro-batches.

        Args:
            step: Zero-based.
            batches: One per active candidate, all of one shape.
            active: The candidates.

        Raises:
            OutOfMemoryError: If memory runs out although batches are cut into micro-batches.
        """
        try:
            if self._dynamics is not None:
                self._dynamics.begin_step(step, active, lambda chosen: self._measure(step, batches, active, chosen))
            losses = self._accumulate(step, batches, active)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            losses = None
        if losses is None:
            # Outside the handler: the exception holds the frames, and these the tensors that must be freed.
            if self._n_parts > 1:
                rows = -(-self._settings.batch_size // self._n_parts)
                raise OutOfMemoryError(f"even micro-batches of {rows} examples do not fit into memory.")
            self._n_parts = min(_MICRO_BATCHES, self._settings.batch_size)
            release_memory(self._device)
            self.step(step, batches, active)
            return
        self._injection.before_update(step, self._optimizer)
        if self._dynamics is not None:
            self._dynamics.before_update(step, active)
        self._optimizer.step(learning_rate_factor(step, self.n_steps, self._settings.warmup_share), active)
        self._injection.after_update(step, self._optimizer)
        if self._dynamics is not None:
            self._dynamics.after_update(step, active)
        self._losses.append(losses)
        self._memory.sample()
        for k, batch in zip(active, batches, strict=True):
            item = self.candidates[k]
            item.steps += 1
            item.examples += len(batch.rows)
            item.tokens += int(self._splits["train"].lengths[batch.rows].sum())

    def _accumulate(self, step: int, batches: Sequence[Batch], active: Sequence[int]) -> Tensor:
        """Gradients of the whole batch, in as many parts as memory asks for; the losses, shape (k,)."""
        self._optimizer.zero_grad()
        n_examples = len(batches[0].rows)
        total = torch.zeros(len(active), device=self._device)
        parts = [split_batch(batch, self._n_parts) for batch in batches]
        first_row = 0
        for micro_batches in zip(*parts, strict=True):
            self._injection.begin_batch(step, training=True, first_row=first_row)
            first_row += len(micro_batches[0].rows)
            losses = self._forward.losses(self._splits["train"], micro_batches, n_examples, active, self.scale)
            penalties = self._injection.penalties()
            share = len(micro_batches[0].rows) / n_examples
            objective = losses.sum() if penalties is None else losses.sum() + share * penalties.sum()
            objective.backward()
            total += losses.detach()
        return total

    @torch.no_grad()
    def _measure(
        self, step: int, batches: Sequence[Batch], active: Sequence[int], chosen: Sequence[int]
    ) -> list[float]:
        """Losses of some of the active candidates on a step's batch, with the dropout that the step has."""
        own = [batches[active.index(k)] for k in chosen]
        total = torch.zeros(len(chosen), device=self._device)
        self._injection.select(chosen)
        try:
            first_row = 0
            for parts in zip(*(split_batch(batch, self._n_parts) for batch in own), strict=True):
                self._injection.begin_batch(step, training=True, first_row=first_row)
                first_row += len(parts[0].rows)
                total += self._forward.losses(self._splits["train"], parts, len(own[0].rows), chosen, self.scale)
        finally:
            self._injection.select(active)
        return [float(loss) for loss in total]

    def _look(self) -> None:
        """Read the losses since the last look; a candidate with one that is not finite has diverged."""
        if not self._losses:
            return
        active = self.active
        values = torch.stack(self._losses).double().cpu()
        self._losses.clear()
        self._loss_steps += len(values)
        for column, k in enumerate(active):
            self._loss_sums[k] += float(values[:, column].sum())
            if not bool(torch.isfinite(values[:, column]).all()):
                self._fail(k, DivergenceError("the training loss is not finite."))
        if len(self.active) < len(active):
            self._drop()

    def _point(self, step: int) -> None:
        """Evaluate the active candidates, report the points, and drop who diverged or was stopped."""
        active = self.active
        if not active:
            return
        self._tick(active, training=True)
        statistics = {k: self._injection.statistics(k) for k in active}
        self._injection.begin_statistics()
        rows = None if step in self._epoch_points else self._rung_rows
        logits = self.predictions(SEARCH_SPLIT, active, rows)
        self._tick(active, training=False)
        targets = self._splits[SEARCH_SPLIT].tokens.targets
        targets = targets if rows is None else targets[rows]
        for row, k in enumerate(active):
            item = self.candidates[k]
            try:
                metrics = self._task.evaluate(to_predictions(logits[row], self.scale), targets)
            except DivergenceError as error:
                self._fail(k, error)
                continue
            if self._dynamics is not None:
                metrics = {**metrics, **self._dynamics.statistics(k)}
            metrics = {**metrics, **statistics[k], "train_loss": self._loss_sums[k] / max(1, self._loss_steps)}
            point = CurvePoint(
                step=step,
                epoch=step / self.plan.steps_per_epoch,
                metrics=metrics,
                wall_time_s=item.wall_time_s,
                n_examples=None if rows is None else len(rows),
            )
            since = item.wall_time_s - (item.curve[-1].wall_time_s if item.curve else 0.0)
            item.curve.append(point)
            if self._on_point(k, point) and step < self.n_steps:
                item.is_stopped_early = True
            if self._keep is not None and step < self.n_steps:
                self._keep(k, since, functools.partial(self.checkpoint, k))
        self._loss_sums = [0.0] * len(self.candidates)
        self._loss_steps = 0
        self._drop()
        self._clock = time.perf_counter()

    def _drop(self) -> None:
        active = self.active
        if active:
            self._injection.select(active)

    def _fail(self, k: int, error: DivergenceError) -> None:
        step = self.candidates[k].steps
        self.candidates[k].failure = Failure(
            reason="divergence", message=f"Training diverged by step {step} of {self.n_steps}: {error}"
        )

    def _tick(self, active: Sequence[int], *, training: bool) -> None:
        """Share the time since the last tick among the active candidates."""
        synchronize(self._device)
        now = time.perf_counter()
        share = (now - self._clock) / len(active)
        self._clock = now
        for k in active:
            self.candidates[k].wall_time_s += share
            self.candidates[k].train_time_s += share if training else 0.0
