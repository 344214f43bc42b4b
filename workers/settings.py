"""What a worker is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autopeft.exceptions import UsageError

from .messages import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Settings of one worker.

    Args:
        cache_dir: Folder for tokens, hidden states and checkpoints.
        studies: Names of the studies it serves; empty for all whose driver asks for workers.
        device: Torch device, or ``"auto"``.
        gpu_share: Share of the GPU's memory that it may take, in (0, 1].
        threads: Threads of the CPU, >= 1; None leaves it to torch.
        cohort: Configurations trained as one batch, >= 1; None takes the study's, or measures it.
        resident: Studies whose backbone and data are kept in memory, >= 1.
        memory_limit_bytes: A trial fails when its engine grows beyond this; None for no limit.
        trial_timeout_s: A trial fails when its engine gives no sign for so long, > 0. Signs are the start, points of
            the curve, and the end: it must be more than an epoch takes.
        idle_timeout_s: It ends after so long without a trial; None never.
        is_once: Whether it ends after one trial, or one cohort.
        lease_s: A trial is given to another worker when this one was not heard of for so long, >= 1.
        grace_s: What it holds is given back within so long after it was asked to end, > 0.
        allow_code: Whether code that studies name may be run: reward functions of the user's, code that comes with a
            backbone, pickled weights.
        pool: Name of the pool it belongs to; None for none.
        artifacts: Place of the files that machines share: a folder, or the URL of an object store; None for none.
    """

    cache_dir: Path
    studies: tuple[str, ...] = ()
    device: str = "auto"
    gpu_share: float = 1.0
    threads: int | None = None
    cohort: int | None = None
    resident: int = 2
    memory_limit_bytes: int | None = None
    trial_timeout_s: float = 3600.0
    idle_timeout_s: float | None = None
    is_once: bool = False
    lease_s: float = 60.0
    grace_s: float = 8.0
    allow_code: bool = False
    pool: str | None = None
    artifacts: str | None = None

    def __post_init__(self) -> None:
        lows = {"threads": 1, "cohort": 1, "resident": 1, "lease_s": 1, "memory_limit_bytes": 2**20}
        for name, low in lows.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"{_flag(name)} must be at least {low}, but got {value:g}.")
        for name in ("trial_timeout_s", "idle_timeout_s", "grace_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{_flag(name)} must be positive, but got {value:g} seconds.")
        if not 0 < self.gpu_share <= 1:
            raise UsageError(f"--gpu-share must lie in (0, 1], but got {self.gpu_share:g}.")

    @property
    def engine(self) -> EngineSettings:
        """What its engine is started with."""
        return EngineSettings(
            cache_dir=self.cache_dir,
            device=self.device,
            gpu_share=self.gpu_share,
            threads=self.threads,
            cohort=self.cohort,
            resident=self.resident,
            allow_code=self.allow_code,
            artifacts=self.artifacts,
        )


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_s').removesuffix('_bytes').replace('_', '-')}"
