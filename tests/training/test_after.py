from __future__ import annotations

import time

import pytest

from autopeft.exceptions import RewardError
from autopeft.training import RewardReading
from tests.training.toys import job, lora, toy_runner


class Rewards:
    """Gives constants, or fails for one candidate."""

    def __init__(self, fails=lambda candidate: False, sleep_s: float = 0.0) -> None:
        self._fails = fails
        self._sleep_s = sleep_s
        self.asked = 0

    def measure(self, candidate):
        self.asked += 1
        time.sleep(self._sleep_s)
        if self._fails(candidate):
            raise RewardError("shine", "ValueError: too dark")
        return RewardReading(metrics={"shine": 0.5}, costs={"toll": 2.0})


def test_rewards_stand_beside_metrics_and_costs_with_their_time_apart():
    runner = toy_runner(rewards=Rewards(sleep_s=0.05))
    (outcome,) = runner.run([job(lora((1,)), report=True)])
    for item in outcome.measurements:
        assert item.metrics["shine"] == 0.5
        assert "accuracy" in item.metrics
        assert item.costs["toll"] == 2.0
        assert 0.05 <= item.costs["reward_time_s"] < 5
        # Training time ends with the last point of the curve.
        assert item.costs["wall_time_s"] == pytest.approx(outcome.curve[-1].wall_time_s)


def test_nothing_is_measured_unless_asked_for():
    (outcome,) = toy_runner().run([job(lora((1,)))])
    assert "reward_time_s" not in outcome.measurements[0].costs


def test_failed_reward_fails_its_trial_alone_and_keeps_the_curve():
    rewards = Rewards(fails=lambda candidate: candidate.seed == 1)
    runner = toy_runner(rewards=rewards)
    outcomes = runner.run([job(lora((1,)), seed=seed) for seed in range(3)])
    assert [outcome.failure is None for outcome in outcomes] == [True, False, True]
    failure = outcomes[1].failure
    assert (failure.reason, failure.message) == ("reward", "reward shine: ValueError: too dark")
    assert "Traceback" in failure.traceback
    assert len(outcomes[1].curve) == 2
    assert outcomes[1].measurements == ()
    # A failure of a reward is no failure of the cohort: nobody is trained or measured twice.
    assert rewards.asked == 3


def test_stopped_and_failed_runs_are_not_measured():
    rewards = Rewards()
    runner = toy_runner(rewards=rewards)
    (stopped,) = runner.run([job(lora((1,)))], on_point=lambda *_: True)
    (failed,) = runner.run([job(lora((9,)))])
    assert stopped.is_stopped_early
    assert failed.failure is not None
    assert rewards.asked == 0


def test_interruption_passes():
    class Interrupted(Rewards):
        def measure(self, candidate):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_runner(rewards=Interrupted()).run([job(lora((1,)))])
