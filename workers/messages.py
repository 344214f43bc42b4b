"""What supervisor and engine say to each other. Plain values: neither needs the other's libraries to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autopeft.configuration import Configuration
from autopeft.study import CurvePoint, Failure, Measurement, Study, Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is started with.

    Args:
        cache_dir: Folder for tokens, hidden states and checkpoints.
        device: Torch device, or ``"auto"``.
        gpu_share: Share of the GPU's memory that it may take, in (0, 1].
        threads: Threads of the CPU that it trains with, >= 1; None leaves it to torch.
        cohort: Configurations trained as one batch; None takes the study's, or measures it.
        resident: Studies whose backbone and data are kept in memory, >= 1.
        allow_code: Whether code that studies name may be run.
        artifacts: Place of the files that machines share; None if this one knows none.
    """

    cache_dir: Path
    device: str = "auto"
    gpu_share: float = 1.0
    threads: int | None = None
    cohort: int | None = None
    resident: int = 2
    allow_code: bool = False
    artifacts: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """To the engine: be ready for a study; answered by `Opened` or `Refused`. The study comes without trials."""

    study: Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """To the engine: train trials of an open study as one batch; ends with `Ended` or `Aborted`.

    Args:
        run: Number of the run; an `Abort` names it.
        study: Name of the study.
        trials: What to train.
    """

    run: int
    study: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """To the engine: whether the job ends at the point it told of."""

    stop: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """To the engine, also between a point and its verdict: what configurations cost by closed form; see `Priced`."""

    study: str
    configurations: tuple[Configuration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """To the engine: end a run at once, without results."""

    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """From the engine, once: it is loaded.

    Args:
        devices: What it can train on, JSON-ready.
    """

    devices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """From the engine: a study is ready.

    Args:
        study: Its name.
        cohort: Configurations it trains as one batch.
        rungs: Steps at which the study's pruner decides.
        resident: Names of all studies that are ready now.
    """

    study: str
    cohort: int
    rungs: tuple[int, ...]
    resident: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """From the engine: it cannot serve a study, and why."""

    study: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """From the engine: a run begins.

    Args:
        placement_parameters: Trainable parameters of each placement, per trial.
    """

    placement_parameters: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """From the engine: a job has reached a point, or goes on behind some; it waits for the `Verdict`.

    Args:
        index: Of the job in the run.
        curve: The new point alone, or the points of an earlier part of the run.
        is_resumed: Whether they are those of an earlier part.
    """

    index: int
    curve: tuple[CurvePoint, ...]
    is_resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """From the engine: known costs by name, per configuration asked for."""

    costs: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one trial ended: `autopeft.training.Outcome` without what only torch can read."""

    measurements: tuple[Measurement, ...] = ()
    failure: Failure | None = None
    is_stopped_early: bool = False

    @property
    def state(self) -> TrialState:
        """What the trial is then."""
        if self.failure is not None:
            return TrialState.FAILED
        return TrialState.PRUNED if self.is_stopped_early else TrialState.COMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """From the engine: a run is over.

    Args:
        run: Its number.
        endings: One per trial.
        is_broken: Whether the engine's device is unusable from here on, so that another engine is needed.
        gpu_memory_used_bytes: Memory of the GPU that the engine holds now; None without one.
    """

    run: int
    endings: tuple[Ending, ...]
    is_broken: bool = False
    gpu_memory_used_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """From the engine: a run was ended without results."""

    run: int
