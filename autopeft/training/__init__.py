"""The inner loop: configuration + task + fidelity + seed -> measurement."""

from autopeft.training._checkpoints import CheckpointFolder
from autopeft.training._data import SplitData, TaskData
from autopeft.training._inputs import Inputs, ResidentSplit
from autopeft.training._job import Job, Outcome, PointCallback
from autopeft.training._memory import total_memory_bytes
from autopeft.training._precision import select_precision
from autopeft.training._probe import Probe
from autopeft.training._runner import TrialRunner
from autopeft.training._scores import SCORES, ScoreSource, compute_scores, estimate_score_time
from autopeft.training._settings import PRECISIONS, TrainingSettings
from autopeft.training._token_limit import token_limit
from autopeft.training._trained import RewardReading, Rewards, TrainedCandidate

__all__ = [
    "PRECISIONS",
    "SCORES",
    "CheckpointFolder",
    "Inputs",
    "Job",
    "Outcome",
    "PointCallback",
    "Probe",
    "RewardReading",
    "ResidentSplit",
    "Rewards",
    "ScoreSource",
    "SplitData",
    "TaskData",
    "TrainedCandidate",
    "TrainingSettings",
    "TrialRunner",
    "compute_scores",
    "estimate_score_time",
    "select_precision",
    "token_limit",
    "total_memory_bytes",
]
