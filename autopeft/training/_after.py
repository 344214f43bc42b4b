"""What is measured of a trained candidate after its last evaluation."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from autopeft.exceptions import RewardError
from autopeft.study import Failure
from autopeft.training._job import Outcome
from autopeft.training._trained import Rewards, TrainedCandidate

#: Cost under which the time spent on rewards stands, apart from ``wall_time_s``.
REWARD_TIME = "reward_time_s"


def with_rewards(outcome: Outcome, rewards: Rewards, candidate_of: Callable[[str], TrainedCandidate]) -> Outcome:
    """Add the rewards to an outcome's measurements.

    Args:
        outcome: Of a run; one that failed or was stopped early is given back as it is.
        rewards: What to measure.
        candidate_of: The trained candidate on a split.

    Returns:
        The outcome, each measurement with its rewards and the seconds they took; a failure if one of them failed.
    """
    if outcome.failure is not None or outcome.is_stopped_early:
        return outcome
    measured = []
    for item in outcome.measurements:
        start = time.perf_counter()
        try:
            found = rewards.measure(candidate_of(item.split))
        except RewardError as error:
            failure = Failure(reason="reward", message=str(error), traceback=traceback.format_exc())
            return Outcome(failure=failure, curve=outcome.curve)
        costs = {**item.costs, **found.costs, REWARD_TIME: time.perf_counter() - start}
        measured.append(replace(item, metrics={**item.metrics, **found.metrics}, costs=costs))
    return replace(outcome, measurements=tuple(measured))
