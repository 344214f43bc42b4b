"""A candidate that has been trained, as whatever looks at it afterwards sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from autopeft.backbones import Backbone
from autopeft.configuration import Configuration
from autopeft.exceptions import DivergenceError
from autopeft.modules import Injection
from autopeft.study import Fidelity
from autopeft.training._data import SplitData, TaskData
from autopeft.training._first_token import first_token_only
from autopeft.training._forward import CohortForward
from autopeft.training._inputs import ResidentSplit
from autopeft.training._job import Job
from autopeft.training._settings import TrainingSettings
from autopeft.training._target_scale import TargetScale

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReading:
    """What rewards found on one split of one trained candidate.

    Args:
        metrics: Natural values by name, for `Measurement.metrics`.
        costs: Natural values by name, for `Measurement.costs`.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)


class Rewards(Protocol):
    """Measures trained candidates beyond the metrics of their task; `autopeft.rewards.RewardPanel` does."""

    def measure(self, candidate: TrainedCandidate) -> RewardReading:
        """All rewards of one candidate on one split.

        Raises:
            RewardError: If one of them cannot be measured.
        """


class TrainedCandidate:
    """One trained candidate on one held-out split.

    The backbone is plain except within `installed` and while `outputs` computes.

    Args:
        backbone: The frozen backbone.
        task: Data and metrics.
        settings: Training settings of the study.
        injection: The cohort's modules, trained, not in the backbone now.
        index: Which of its candidates this one is.
        job: What was trained.
        split: ``"search"`` or ``"report"``.
        scale: For regression, the unit of the head's outputs; None for classification.
        evaluation_tokens: Padded tokens per batch.
        resident: Tokenises a split for this candidate.
        kernels: Makes the backbone compute by the fastest kernels.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        task: TaskData,
        settings: TrainingSettings,
        injection: Injection,
        index: int,
        job: Job,
        split: str,
        scale: TargetScale | None,
        evaluation_tokens: int,
        resident: Callable[[SplitData], ResidentSplit],
        kernels: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.backbone = backbone
        self.task = task
        self.settings = settings
        self.split = split
        self._injection = injection
        self._index = index
        self._job = job
        self._scale = scale
        self._tokens = evaluation_tokens
        self._resident = resident
        self._kernels = kernels
        self._own_outputs: Floats | None = None

    @property
    def configuration(self) -> Configuration:
        """What was trained."""
        return self._job.configuration

    @property
    def seed(self) -> int:
        """Of the run."""
        return self._job.seed

    @property
    def fidelity(self) -> Fidelity:
        """How much was trained: the first ``train_examples`` of `task.train`."""
        return self._job.fidelity

    @property
    def data(self) -> SplitData:
        """Texts and targets of the split."""
        found: SplitData = getattr(self.task, self.split)
        return found

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers that depend on the run's seed and a purpose alone."""
        salt = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
        return np.random.default_rng([self.seed, salt])

    @contextmanager
    def installed(self, *, is_fast: bool = False) -> Iterator[Injection]:
        """Within the block, the backbone computes what this candidate computes.

        Args:
            is_fast: Compute by the fastest kernels, and of the last layer only what the head reads.
        """
        with ExitStack() as stack:
            if is_fast:
                stack.enter_context(self._kernels())
                stack.enter_context(first_token_only(self.backbone))
            self._injection.select([self._index])
            self._injection.restore()
            stack.callback(self._injection.remove)
            self._injection.begin_batch(0, training=False)
            yield self._injection

    def resident(self, data: SplitData) -> ResidentSplit:
        """A split's tokens, cut to the candidate's length of texts, on the device."""
        return self._resident(data)

    def state(self) -> dict[str, Tensor]:
        """Trained float32 tensors by name; a regression head gives natural values."""
        state = self._injection.state_dict(self._index)
        return state if self._scale is None else self._scale.fold(state)

    def outputs(self, data: SplitData | None = None) -> Floats:
        """Outputs of the trained model.

        Args:
            data: Any texts; None for the split's own.

        Returns:
            Logits, shape (n, labels); for regression the predicted values, shape (n, 1).

        Raises:
            DivergenceError: If an output is not finite.
        """
        if data is None:
            if self._own_outputs is None:
                self._own_outputs = self._outputs(self.data)
            return self._own_outputs
        return self._outputs(data)

    def predictions(self, data: SplitData | None = None) -> Floats:
        """Class indices or values, as `autopeft.tasks.Task.evaluate` takes them, shape (n,)."""
        outputs = self.outputs(data)
        return outputs[:, 0] if self._scale is not None else outputs.argmax(axis=1).astype(np.float64)

    def probabilities(self, data: SplitData | None = None) -> Floats:
        """Softmax of the logits, shape (n, labels); for classification only."""
        return np.exp(self._log_probabilities(self.outputs(data)))

    def losses(self, data: SplitData | None = None) -> Floats:
        """Cross entropy in nats, or for regression the squared error, of each example, shape (n,)."""
        outputs = self.outputs(data)
        targets = np.asarray((self.data if data is None else data).targets)
        if self._scale is not None:
            return np.asarray((outputs[:, 0] - targets) ** 2, dtype=np.float64)
        return -self._log_probabilities(outputs)[np.arange(len(targets)), targets.astype(np.int64)]

    def evaluate(self, data: SplitData | None = None) -> dict[str, float]:
        """The task's metrics on some texts, natural values."""
        return self.task.evaluate(self.predictions(data), (self.data if data is None else data).targets)

    def position_ids(self, attention_mask: Tensor) -> Tensor | None:
        """Positions that the candidate's prefix shifts; None if it shifts none."""
        offset = self._injection.position_offset(self._index)
        return self.backbone.position_ids(attention_mask, offset) if offset else None

    def _outputs(self, data: SplitData) -> Floats:
        resident = self._resident(data)
        with self.installed(is_fast=True) as injection:
            forward = CohortForward(self.backbone, injection, first_layer=0, states={})
            logits: Any = forward.predict(resident, [self._index], self._tokens)[0].double()
        if not bool(torch.isfinite(logits).all()):
            raise DivergenceError("the trained model's outputs are not finite.")
        return np.asarray((logits if self._scale is None else self._scale.naturalize(logits)).numpy())

    def _log_probabilities(self, logits: Floats) -> Floats:
        if self._scale is not None:
            raise ValueError("a regression has no classes, so no probabilities.")
        return np.asarray(F.log_softmax(torch.from_numpy(logits), dim=1).numpy())
