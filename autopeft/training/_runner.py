"""The resident inner loop: backbone and data are loaded once, trials come and go."""

from __future__ import annotations

import functools
import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from autopeft.backbones import Backbone
from autopeft.configuration import Configuration, known_costs
from autopeft.exceptions import OutOfMemoryError, UsageError
from autopeft.modules import MODULES, Injection, inject
from autopeft.study import REPORT_SPLIT, SEARCH_SPLIT, Failure, Fidelity
from autopeft.training._after import with_rewards
from autopeft.training._attention import fast_attention
from autopeft.training._cache import content_key
from autopeft.training._call import CallbackError, RunCall
from autopeft.training._checkpoint import StaleCheckpointError
from autopeft.training._checkpoints import CheckpointFolder
from autopeft.training._cohort import Candidate, Cohort, KeepCheckpoint
from autopeft.training._cohort_size import MAX_COHORT, choose_cohort_size
from autopeft.training._costs import PeakMemory
from autopeft.training._data import SplitData, TaskData
from autopeft.training._environment import environment, versions
from autopeft.training._first_token import first_token_only
from autopeft.training._forward import CohortForward
from autopeft.training._hidden_states import DISK_CAP_BYTES, HiddenStateStore, StoredStates
from autopeft.training._inputs import ResidentSplit
from autopeft.training._job import Job, Outcome, PointCallback, ResumeCallback
from autopeft.training._memory import default_memory_cap, is_out_of_memory, release_memory
from autopeft.training._outcome import make_outcome
from autopeft.training._packed_linear import PackedLinears
from autopeft.training._probe import Probe, probe_cohort
from autopeft.training._settings import MIN_TOKENS, TrainingSettings
from autopeft.training._token_limit import token_limit
from autopeft.training._tokens import tokenize_split
from autopeft.training._trained import Rewards, TrainedCandidate

_logger = logging.getLogger("autopeft.training")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Setup:
    """An injected cohort, ready to train."""

    cohort: Cohort
    injection: Injection
    forward: CohortForward
    memory: PeakMemory
    first_layer: int
    splits: dict[str, ResidentSplit]


class TrialRunner:
    """Trains configurations over one backbone and one task.

    Args:
        backbone: Frozen; modules are injected for a run and removed after it.
        task: Data and metrics.
        settings: Training settings of the study.
        cache_dir: Folder for tokens and for hidden states beyond the memory cap; None keeps all in memory.
        memory_cap_bytes: Bytes of hidden states kept in memory on the backbone's device; 0 keeps none, None takes a
            quarter of what is free now.
        disk_cap_bytes: Bytes of hidden states kept in files, those of other processes included; the least recently
            used ones make room.
        cohort: Jobs trained as one batch at most; None trains all jobs of a call with the same fidelity together.
        rewards: What else is measured of a candidate that was trained to its end; None for nothing.
        checkpoints: Where runs that were cut off or stopped are kept, to go on when they are asked for again; None
            keeps none.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: TaskData,
        settings: TrainingSettings | None = None,
        *,
        cache_dir: Path | None = None,
        memory_cap_bytes: int | None = None,
        disk_cap_bytes: int = DISK_CAP_BYTES,
        cohort: int | None = None,
        rewards: Rewards | None = None,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.backbone = backbone
        self.task = task
        self.settings = settings or TrainingSettings()
        self.cache_dir = cache_dir
        self.rewards = rewards
        self._checkpoints = checkpoints
        self._cohort = cohort
        self._splits: dict[str, tuple[int, ResidentSplit]] = {}
        cap = default_memory_cap(backbone.device) if memory_cap_bytes is None else memory_cap_bytes
        self._linears = PackedLinears(backbone)
        self._states = HiddenStateStore(
            backbone, cache_dir=cache_dir, memory_cap_bytes=cap, disk_cap_bytes=disk_cap_bytes
        )
        #: Time spent computing hidden states so far, in seconds; part of no trial's time.
        self.cache_fill_time_s = 0.0

    def split(self, name: str, configuration: Configuration) -> ResidentSplit:
        """A split, tokenised at the first call for a configuration that leaves its texts as long.

        Raises:
            UsageError: If a prefix leaves the texts no positions.
        """
        limit = self._token_limit(configuration)
        if limit < MIN_TOKENS:
            raise UsageError(
                f"a soft prompt or a prefix on every layer takes up positions, and {configuration.describe()} leaves "
                f"{max(limit, 0)} of the {self.backbone.max_positions} that the backbone has; texts need {MIN_TOKENS}. "
                "Shorten it."
            )
        known, split = self._splits.get(name, (None, None))
        if split is None or known != limit:
            split = self._resident(name, getattr(self.task, name), limit)
            self._splits[name] = limit, split
        return split

    def _resident(self, name: str, data: SplitData, limit: int) -> ResidentSplit:
        tokens = tokenize_split(data, self.backbone.tokenizer, limit, self.cache_dir)
        return ResidentSplit(name, tokens, self.backbone.pad_token_id, self.backbone.device)

    def _token_limit(self, configuration: Configuration) -> int:
        return token_limit(self.settings.max_tokens, self.backbone, configuration)

    def run(
        self,
        jobs: Sequence[Job],
        *,
        on_point: PointCallback | None = None,
        on_resume: ResumeCallback | None = None,
        keep_state: bool = False,
    ) -> list[Outcome]:
        """Train jobs.

        Jobs of the same fidelity, rungs, length of texts and step to go on from form cohorts. A job that fails does not
        touch the others; an interruption passes through and leaves the backbone as it was.

        Args:
            jobs: What to train.
            on_point: Called with a job's index and each new point of its curve; True stops that job early. What it
                raises ends the call.
            on_resume: Called before anything is trained, for each job that goes on from a checkpoint, with its index
                and its curve so far; True stops it where it is.
            keep_state: Whether the outcomes carry the trained tensors.

        Returns:
            One outcome per job, in their order.
        """
        call = RunCall(
            jobs,
            on_point=on_point,
            on_resume=on_resume,
            keep_state=keep_state,
            folder=self._checkpoints,
            key=self._checkpoint_key,
            device=self.backbone.device,
        )
        outcomes: dict[int, Outcome] = {}
        for group in self._groups(call):
            self._run_group(group, call, outcomes)
        return [outcomes[index] for index in range(len(jobs))]

    def probe(self, configuration: Configuration, *, n_candidates: int = 1) -> Probe:
        """Measure what a configuration costs, on a few steps that are then forgotten.

        Args:
            configuration: What to train.
            n_candidates: Copies of it that train as one batch.

        Raises:
            OutOfMemoryError: If so many copies do not fit into memory.
        """
        fidelity = Fidelity(train_examples=len(self.task.train.texts), epochs=1)
        candidates = [
            Candidate(job=Job(configuration=configuration, seed=seed, fidelity=fidelity))
            for seed in range(n_candidates)
        ]
        try:
            with self._injected(candidates, lambda *_: False, store_states=False) as setup:
                train_s, evaluation_s = probe_cohort(
                    setup.cohort, setup.forward, setup.splits["train"], setup.splits[SEARCH_SPLIT]
                )
                peak = setup.memory.read()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"{n_candidates} candidates do not fit into memory together.") from error
        finally:
            release_memory(self.backbone.device)
        return Probe(train_s_per_example=train_s, evaluation_s_per_example=evaluation_s, peak_memory_bytes=peak)

    def estimate(self, configuration: Configuration, fidelity: Fidelity) -> float:
        """Estimate a trial's time by a probe, in seconds; hidden states are not used, so it is an upper estimate."""
        probe = self.probe(configuration)
        n_search = len(self.task.search.texts)
        points = set(self.settings.epoch_points(fidelity))
        n_at_rungs = min(self.settings.rung_examples or n_search, n_search)
        n_evaluated = n_search * len(points) + n_at_rungs * len(set(self.settings.rung_steps(fidelity)) - points)
        return (
            probe.train_s_per_example * fidelity.train_examples * fidelity.epochs
            + probe.evaluation_s_per_example * n_evaluated
        )

    def untrained(self, configuration: Configuration, fidelity: Fidelity) -> TrainedCandidate:
        """A candidate as it is before training: to try on it what is measured after, and how long that takes."""
        candidates = [Candidate(job=Job(configuration=configuration, seed=0, fidelity=fidelity))]
        with self._injected(candidates, lambda *_: False, store_states=False) as setup:
            pass
        return self._trained(setup, 0, SEARCH_SPLIT)

    def cohort_size(self, configuration: Configuration, *, limit: int = MAX_COHORT) -> int:
        """How many configurations to train as one batch: 1 on a CPU; on a GPU what memory and a probe favor.

        Args:
            configuration: A costly one.
            limit: Largest answer.
        """
        if self.backbone.device.type != "cuda":
            return 1
        return choose_cohort_size(lambda k: self.probe(configuration, n_candidates=k), limit=limit)

    @contextmanager
    def accelerated(self) -> Iterator[None]:
        """Within the block, the backbone computes the same by the fastest kernels that this device has for it."""
        with fast_attention(self.backbone.device), self._linears.installed():
            yield

    def _checkpoint_key(self, job: Job) -> str:
        """What a run's numbers depend on."""
        backbone = self.backbone
        return content_key(
            sorted(versions().items()), backbone.device.type, backbone.dtype, backbone.content_hash,
            self.task.content_hash, sorted(self.settings.to_dict().items()), job.configuration.fingerprint, job.seed,
            job.fidelity, job.measures_rungs,
        )  # fmt: skip

    def _groups(self, call: RunCall) -> list[list[int]]:
        """Cohorts: equal data, and neighbors in their lowest layer, so that a cohort starts as high as it can."""
        jobs = call.jobs
        by_data: dict[tuple[Fidelity, int, bool, int], list[int]] = {}
        for index, job in enumerate(jobs):
            key = (job.fidelity, self._token_limit(job.configuration), job.measures_rungs, call.start(index))
            by_data.setdefault(key, []).append(index)
        groups = []
        for members in by_data.values():
            members.sort(key=lambda index: (-self._first_layer(jobs[index].configuration), index))
            size = self._cohort or len(members)
            groups += [members[start : start + size] for start in range(0, len(members), size)]
        return groups

    def _run_group(self, group: list[int], call: RunCall, outcomes: dict[int, Outcome]) -> None:
        """Train a cohort; if it cannot be trained as a whole, train its halves, so that only the guilty fail."""
        candidates = call.candidates(group)
        failure: Failure | None = None
        stale: StaleCheckpointError | None = None
        try:
            results = self._run_cohort(candidates, group, call)
            outcomes.update(zip(group, results, strict=True))
        except CallbackError as error:
            raise error.cause from error.cause.__cause__
        except StaleCheckpointError as error:
            stale = error
        except Exception as error:
            is_memory = isinstance(error, OutOfMemoryError) or is_out_of_memory(error)
            failure = Failure(
                reason="out_of_memory" if is_memory else "error",
                message=str(error) if isinstance(error, OutOfMemoryError) else f"{type(error).__name__}: {error}",
                traceback=traceback.format_exc(),
            )
        if stale is not None:
            call.forget(group, stale)
            self._run_group(group, call, outcomes)
            return
        if failure is None:
            for index in group:
                if not outcomes[index].is_stopped_early:
                    call.ended(index)
            return
        # Outside the handler, so that the frames of the failed attempt are gone and their tensors freed.
        release_memory(self.backbone.device)
        if len(group) == 1:
            outcomes[group[0]] = Outcome(failure=failure, curve=tuple(candidates[0].curve))
            call.ended(group[0])
            return
        _logger.warning("a cohort of %d could not be trained (%s); trying its halves.", len(group), failure.message)
        middle = len(group) // 2
        self._run_group(group[:middle], call, outcomes)
        self._run_group(group[middle:], call, outcomes)

    def _run_cohort(self, candidates: Sequence[Candidate], group: Sequence[int], call: RunCall) -> list[Outcome]:
        keep = call.keep(group)
        with self._injected(candidates, call.report(group), keep=keep, store_states=True) as setup:
            earlier = call.checkpoints(group)
            if earlier:
                setup.cohort.restore(earlier)
                for candidate, index in zip(candidates, group, strict=True):
                    candidate.is_stopped_early = call.is_stopped(index)
            setup.cohort.train()
            wanted = [k for k in setup.cohort.active if REPORT_SPLIT in candidates[k].job.splits]
            report: dict[int, Tensor] = {}
            if wanted:
                report = dict(zip(wanted, setup.cohort.predictions(REPORT_SPLIT, wanted), strict=True))
            facts = environment(
                device=self.backbone.device,
                dtype=self.backbone.dtype,
                backbone_hash=self.backbone.content_hash,
                task_hash=self.task.content_hash,
            )
            facts |= {"cohort": len(candidates), "first_computed_layer": setup.first_layer}
            peak = setup.memory.read()
            outcomes = [
                make_outcome(
                    candidate,
                    self.task,
                    n_steps=setup.cohort.n_steps,
                    report_logits=report.get(k),
                    scale=setup.cohort.scale,
                    peak_memory_bytes=peak,
                    environment=facts,
                    state=setup.injection.state_dict(k) if call.keep_state else None,
                    known_costs=self._known_costs(candidate.job.configuration),
                )
                for k, candidate in enumerate(candidates)
            ]
        if self.rewards is None:
            return outcomes
        # The backbone is plain again: a reward installs a candidate's modules as it needs them.
        return [
            with_rewards(outcome, self.rewards, functools.partial(self._trained, setup, k))
            for k, outcome in enumerate(outcomes)
        ]

    def _known_costs(self, configuration: Configuration) -> dict[str, float]:
        """Beside the parameters, which every trial has anyway."""
        found = known_costs(configuration, self.backbone.shapes, MODULES)
        return {name: value for name, value in found.items() if name != "trainable_parameters"}

    def _trained(self, setup: _Setup, k: int, split: str) -> TrainedCandidate:
        job = setup.cohort.candidates[k].job
        limit = self._token_limit(job.configuration)
        return TrainedCandidate(
            backbone=self.backbone,
            task=self.task,
            settings=self.settings,
            injection=setup.injection,
            index=k,
            job=job,
            split=split,
            scale=setup.cohort.scale,
            evaluation_tokens=setup.cohort.evaluation_tokens,
            resident=lambda data: self._resident("", data, limit),
            kernels=self.accelerated,
        )

    @contextmanager
    def _injected(
        self,
        candidates: Sequence[Candidate],
        on_point: PointCallback,
        *,
        keep: KeepCheckpoint | None = None,
        store_states: bool,
    ) -> Iterator[_Setup]:
        """Inject a cohort; within the block it can train, after it the backbone is as before."""
        fidelity = candidates[0].job.fidelity
        if fidelity.train_examples > len(self.task.train.texts):
            raise UsageError(
                f"the fidelity asks for {fidelity.train_examples} training examples, but the task "
                f"{self.task.name} has {len(self.task.train.texts)}."
            )
        names = dict.fromkeys(["train", SEARCH_SPLIT, *(name for item in candidates for name in item.job.splits)])
        splits = {name: self.split(name, candidates[0].job.configuration) for name in names}
        first_layer = min(self._first_layer(item.job.configuration) for item in candidates)
        states = self._stored_states(splits, first_layer, fidelity) if store_states else {}
        memory = PeakMemory(self.backbone.device)
        memory.start()
        seeds = [item.job.seed for item in candidates]
        configurations = [item.job.configuration for item in candidates]
        with (
            self.accelerated(),
            first_token_only(self.backbone),
            inject(self.backbone, configurations, seeds=seeds) as injection,
        ):
            forward = CohortForward(self.backbone, injection, first_layer=first_layer, states=states)
            cohort = Cohort(
                injection=injection,
                forward=forward,
                task=self.task,
                splits=splits,
                settings=self.settings,
                candidates=candidates,
                on_point=on_point,
                memory=memory,
                keep=keep,
            )
            yield _Setup(
                cohort=cohort,
                injection=injection,
                forward=forward,
                memory=memory,
                first_layer=first_layer if states else 0,
                splits=splits,
            )

    def _first_layer(self, configuration: Configuration) -> int:
        """Lowest layer with a module; the number of layers if only the head is trained."""
        lowest = configuration.lowest_layer
        return self.backbone.shapes.n_layers if lowest is None else lowest

    def _stored_states(
        self, splits: dict[str, ResidentSplit], first_layer: int, fidelity: Fidelity
    ) -> dict[str, StoredStates]:
        """What enters the lowest tuned layer, for every split it can be had for. Must run before modules are in."""
        # A layer that does not exist is for the injection to refuse.
        if not 0 < first_layer <= self.backbone.shapes.n_layers:
            return {}
        start = time.perf_counter()
        found = {}
        with self.accelerated():
            for name, split in splits.items():
                n_examples = fidelity.train_examples if name == "train" else len(split)
                stored = self._states.get(split, n_examples, first_layer)
                if stored is not None:
                    found[name] = stored
        self.cache_fill_time_s += time.perf_counter() - start
        return found
