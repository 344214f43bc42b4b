"""Rewards beyond the task's metrics: what chooses among trained configurations in the outer level of a search."""

from autopeft.rewards._base import BuiltinReward, Reward, RewardValue, check_reward, objective_of
from autopeft.rewards._function import FunctionReward, reward
from autopeft.rewards._panel import RewardPanel
from autopeft.rewards._registry import (
    ENTRY_POINTS,
    REWARDS,
    find_reward,
    find_rewards,
    installed_rewards,
    known_rewards,
)
from autopeft.training import TrainedCandidate

__all__ = [
    "ENTRY_POINTS",
    "REWARDS",
    "BuiltinReward",
    "FunctionReward",
    "Reward",
    "RewardPanel",
    "RewardValue",
    "TrainedCandidate",
    "check_reward",
    "find_reward",
    "find_rewards",
    "installed_rewards",
    "known_rewards",
    "objective_of",
    "reward",
]
