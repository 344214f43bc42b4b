"""The resident inner loop: backbone and data are loaded once, trials come and go."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from autopeft.backbones import Backbone
from autopeft.configuration import Configuration
from autopeft.exceptions import DivergenceError, OutOfMemoryError
from autopeft.modules import Injection, inject
from autopeft.study import REPORT_SPLIT, SEARCH_SPLIT, CurvePoint, Failure, Fidelity, Measurement
from autopeft.training._attention import fast_attention
from autopeft.training._cohort import Candidate, Cohort, is_out_of_memory, release_memory
from autopeft.training._costs import PeakMemory
from autopeft.training._data import TaskData
from autopeft.training._environment import environment
from autopeft.training._first_token import first_token_only
from autopeft.training._forward import CohortForward, to_predictions
from autopeft.training._hidden_states import HiddenStateStore, StoredStates
from autopeft.training._inputs import ResidentSplit
from autopeft.training._job import Job, Outcome, PointCallback
from autopeft.training._memory import default_memory_cap
from autopeft.training._settings import TrainingSettings
from autopeft.training._tokens import tokenize_split

_logger = logging.getLogger("autopeft.training")


class TrialRunner:
    """Trains configurations over one backbone and one task.

    Args:
        backbone: Frozen; modules are injected for a run and removed after it.
        task: Data and metrics.
        settings: Training settings of the study.
        cache_dir: Folder for tokens and for hidden states beyond the memory cap; None keeps all in memory.
        memory_cap_bytes: Bytes of hidden states kept in memory on the backbone's device; 0 keeps none, None takes a
            quarter of what is free now.
        cohort: Jobs trained as one batch at most; None trains all jobs of a call with the same fidelity together.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: TaskData,
        settings: TrainingSettings | None = None,
        *,
        cache_dir: Path | None = None,
        memory_cap_bytes: int | None = None,
        cohort: int | None = None,
    ) -> None:
        self._backbone = backbone
        self._task = task
        self._settings = settings or TrainingSettings()
        self._cache_dir = cache_dir
        self._cohort = cohort
        self._splits: dict[str, ResidentSplit] = {}
        cap = default_memory_cap(backbone.device) if memory_cap_bytes is None else memory_cap_bytes
        self._states = HiddenStateStore(backbone, cache_dir=cache_dir, memory_cap_bytes=cap)
        #: Time spent computing hidden states so far, in seconds; part of no trial's time.
        self.cache_fill_time_s = 0.0

    @property
    def backbone(self) -> Backbone:
        return self._backbone

    @property
    def settings(self) -> TrainingSettings:
        return self._settings

    def split(self, name: str) -> ResidentSplit:
        """A split, tokenised at the first call."""
        if name not in self._splits:
            tokens = tokenize_split(
                getattr(self._task, name),
                self._backbone.tokenizer,
                min(self._settings.max_tokens, self._backbone.max_positions),
                self._cache_dir,
            )
            self._splits[name] = ResidentSplit(name, tokens, self._backbone.pad_token_id, self._backbone.device)
        return self._splits[name]

    def run(
        self, jobs: Sequence[Job], *, on_point: PointCallback | None = None, keep_state: bool = False
    ) -> list[Outcome]:
        """Train jobs.

        Jobs of the same fidelity form cohorts. A job that fails does not touch the others; an interruption passes
        through and leaves the backbone as it was.

        Args:
            jobs: What to train.
            on_point: Called with a job's index and each new point of its curve; True stops that job early.
            keep_state: Whether the outcomes carry the trained tensors.

        Returns:
            One outcome per job, in their order.
        """
        reporter = _Reporter(on_point)
        outcomes: dict[int, Outcome] = {}
        for group in self._groups(jobs):
            self._run_group(group, jobs, reporter, keep_state, outcomes)
        return [outcomes[index] for index in range(len(jobs))]

    def _groups(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Cohorts: equal fidelity, and neighbours in their lowest layer, so that a cohort starts as high as it can."""
        by_fidelity: dict[Fidelity, list[int]] = {}
        for index, job in enumerate(jobs):
            by_fidelity.setdefault(job.fidelity, []).append(index)
        groups = []
        for members in by_fidelity.values():
            members.sort(key=lambda index: (-self._first_layer(jobs[index].configuration), index))
            size = self._cohort or len(members)
            groups += [members[start : start + size] for start in range(0, len(members), size)]
        return groups

    def _run_group(
        self,
        group: list[int],
        jobs: Sequence[Job],
        reporter: _Reporter,
        keep_state: bool,
        outcomes: dict[int, Outcome],
    ) -> None:
        """Train a cohort; if it cannot be trained as a whole, train its halves, so that only the guilty fail."""
        candidates = [Candidate(job=jobs[index]) for index in group]
        failure: Failure | None = None
        try:
            results = self._run_cohort(candidates, reporter.of(group), keep_state)
            outcomes.update(zip(group, results, strict=True))
        except OutOfMemoryError as error:
            failure = Failure(reason="out_of_memory", message=str(error), traceback=traceback.format_exc())
        except Exception as error:
            reason = "out_of_memory" if is_out_of_memory(error) else "error"
            message = f"{type(error).__name__}: {error}"
            failure = Failure(reason=reason, message=message, traceback=traceback.format_exc())
        if failure is None:
            return
        # Outside the handlers, so that the frames of the failed attempt are gone and their tensors freed.
        release_memory(self._backbone.device)
        if len(group) == 1:
            outcomes[group[0]] = Outcome(failure=failure, curve=tuple(candidates[0].curve))
            return
        _logger.warning("a cohort of %d could not be trained (%s); trying its halves.", len(group), failure.message)
        middle = len(group) // 2
        self._run_group(group[:middle], jobs, reporter, keep_state, outcomes)
        self._run_group(group[middle:], jobs, reporter, keep_state, outcomes)

    def _run_cohort(self, candidates: Sequence[Candidate], on_point: PointCallback, keep_state: bool) -> list[Outcome]:
        first_layer = min(self._first_layer(item.job.configuration) for item in candidates)
        names = dict.fromkeys(["train", SEARCH_SPLIT, *(name for item in candidates for name in item.job.splits)])
        splits = {name: self.split(name) for name in names}
        states = self._stored_states(splits, first_layer, candidates[0].job.fidelity)
        memory = PeakMemory(self._backbone.device)
        memory.start()
        seeds = [item.job.seed for item in candidates]
        configurations = [item.job.configuration for item in candidates]
        with (
            fast_attention(self._backbone.device),
            first_token_only(self._backbone),
            inject(self._backbone, configurations, seeds=seeds) as injection,
        ):
            cohort = Cohort(
                injection=injection,
                forward=CohortForward(self._backbone, injection, first_layer=first_layer, states=states),
                task=self._task,
                splits=splits,
                settings=self._settings,
                candidates=candidates,
                on_point=on_point,
                memory=memory,
            )
            cohort.train()
            predictions = self._report_predictions(cohort)
            peak = memory.read()
            return [
                self._outcome(k, cohort, injection, predictions.get(k), peak, first_layer, keep_state)
                for k in range(len(candidates))
            ]

    def _first_layer(self, configuration: Configuration) -> int:
        """Lowest layer with a module; the number of layers if only the head is trained."""
        lowest = configuration.lowest_layer
        return self._backbone.shapes.n_layers if lowest is None else lowest

    def _stored_states(
        self, splits: dict[str, ResidentSplit], first_layer: int, fidelity: Fidelity
    ) -> dict[str, StoredStates]:
        """What enters the lowest tuned layer, for every split it can be had for. Must run before modules are in."""
        if first_layer == 0:
            return {}
        start = time.perf_counter()
        found = {}
        with fast_attention(self._backbone.device):
            for name, split in splits.items():
                n_examples = fidelity.train_examples if name == "train" else len(split)
                stored = self._states.get(split, n_examples, first_layer)
                if stored is not None:
                    found[name] = stored
        self.cache_fill_time_s += time.perf_counter() - start
        return found

    def _report_predictions(self, cohort: Cohort) -> dict[int, Tensor]:
        """Outputs on the report split of the candidates that finished and were asked for it."""
        wanted = [k for k in cohort.active if REPORT_SPLIT in cohort.candidates[k].job.splits]
        if not wanted:
            return {}
        return dict(zip(wanted, cohort.predictions(REPORT_SPLIT, wanted), strict=True))

    def _outcome(
        self,
        k: int,
        cohort: Cohort,
        injection: Injection,
        report: Tensor | None,
        peak: int | None,
        first_layer: int,
        keep_state: bool,
    ) -> Outcome:
        item = cohort.candidates[k]
        curve = tuple(item.curve)
        if item.failure is not None:
            return Outcome(failure=item.failure, curve=curve)
        fidelity = item.job.fidelity
        if item.is_stopped_early:
            epochs = int(curve[-1].epoch)
            if epochs == 0:
                return Outcome(curve=curve, is_stopped_early=True)
            fidelity = Fidelity(train_examples=fidelity.train_examples, epochs=epochs)
        facts: dict[str, Any] = {
            "fidelity": fidelity,
            "seed": item.job.seed,
            "costs": _costs(item, peak),
            "environment": self._environment(len(cohort.candidates), first_layer),
            "curve": curve,
        }
        measurements = []
        for split in item.job.splits:
            if split == SEARCH_SPLIT:
                metrics = {name: value for name, value in curve[-1].metrics.items() if name != "train_loss"}
                measurements.append(Measurement(split=split, metrics=metrics, **facts))
            elif report is not None:
                try:
                    predicted = to_predictions(report, self._task.kind)
                except DivergenceError as error:
                    message = f"Training diverged: on the report split {error}"
                    return Outcome(failure=Failure(reason="divergence", message=message), curve=curve)
                metrics = self._task.evaluate(predicted, self.split(split).tokens.targets)
                measurements.append(
                    Measurement(split=split, metrics=metrics, predictions=tuple(predicted.tolist()), **facts)
                )
        state = injection.state_dict(k) if keep_state else None
        return Outcome(
            measurements=tuple(measurements),
            curve=curve,
            is_stopped_early=item.is_stopped_early,
            state=None if state is None else {name: tensor.detach().cpu().clone() for name, tensor in state.items()},
        )

    def _environment(self, cohort: int, first_layer: int) -> dict[str, Any]:
        facts = environment(
            device=self._backbone.device,
            dtype=self._backbone.dtype,
            backbone_hash=self._backbone.content_hash,
            task_hash=self._task.content_hash,
        )
        return {**facts, "cohort": cohort, "first_computed_layer": first_layer}


class _Reporter:
    """Passes each point of each job on once, also when a cohort has to be trained again in halves."""

    def __init__(self, on_point: PointCallback | None) -> None:
        self._on_point = on_point
        self._last: dict[int, tuple[int, bool]] = {}

    def of(self, group: Sequence[int]) -> PointCallback:
        def report(k: int, point: CurvePoint) -> bool:
            if self._on_point is None:
                return False
            index = group[k]
            step, is_stopped = self._last.get(index, (0, False))
            if point.step > step:
                self._last[index] = (point.step, self._on_point(index, point))
                return self._last[index][1]
            return is_stopped and point.step == step

        return report


def _costs(item: Candidate, peak: int | None) -> dict[str, float]:
    costs: dict[str, float] = {"wall_time_s": item.wall_time_s}
    if peak is not None:
        costs["peak_memory_bytes"] = float(peak)
    if item.train_time_s > 0:
        costs["examples_per_s"] = item.examples / item.train_time_s
        costs["tokens_per_s"] = item.tokens / item.train_time_s
    return costs
