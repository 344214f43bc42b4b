from collections.abc import Sequence

import numpy as np
import pytest

from autopeft.samplers import Suggestion
from autopeft.study import Trial, TrialState
from benchmarks.replay.simulate import replay
from benchmarks.replay.world import World, make_world
from tests.benchmarks.tables import ABOUT, SPACE, records, world
from tests.samplers.problem import FIDELITY

WORLD = world(12)


class Listed:
    """Proposes rows in a given order and remembers what it was shown."""

    def __init__(self, here: World, rows: Sequence[int]) -> None:
        self.here = here
        self.rows = list(rows)
        self.seen: list[list[Trial]] = []

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        self.seen.append(list(trials))
        if len(trials) >= len(self.rows):
            return []
        return [Suggestion(params=self.here.rows[self.rows[len(trials)]].point.params)]


def test_one_worker_does_one_trial_after_the_other() -> None:
    rows = [5, 2, 9, 0]
    sampler = Listed(WORLD, rows)
    found = replay(WORLD, sampler, n_trials=4, seed=1)
    assert found.order == tuple(rows)
    assert found.finished_s == pytest.approx(np.cumsum([WORLD.rows[row].runs[1].wall_time_s for row in rows]))
    for k, trials in enumerate(sampler.seen):
        assert [item.state for item in trials] == [TrialState.COMPLETE] * k
        assert [item.value("accuracy") for item in trials] == [WORLD.rows[row].runs[1].value for row in rows[:k]]


def test_repetitions_take_turns_over_the_seeds_of_the_table() -> None:
    for seed in range(4):
        sampler = Listed(WORLD, [3, 4])
        replay(WORLD, sampler, n_trials=2, seed=seed)
        assert sampler.seen[-1][0].value("accuracy") == WORLD.rows[3].runs[seed % 2].value


def with_times(seconds: Sequence[float]) -> World:
    """A table whose runs take the given times, in the order of its rows."""
    found = records(len(seconds))
    here = make_world("made", found, ABOUT, SPACE, FIDELITY)
    for item in found:
        wanted = seconds[here.index[item["fingerprint"]]]
        item["wall_time_s"] = wanted
        item["curve_time_s"] = [wanted / 3, wanted * 2 / 3, wanted]
    return make_world("made", found, ABOUT, SPACE, FIDELITY)


def test_two_workers_ask_as_soon_as_one_is_free() -> None:
    """Worked by hand: 6 s and 2 s start at 0; 3 s starts at 2, when the second ends; 1 s at 5; 4 s at 6."""
    here = with_times([6.0, 2.0, 3.0, 1.0, 4.0])
    sampler = Listed(here, [0, 1, 2, 3, 4])
    found = replay(here, sampler, n_trials=5, n_workers=2)
    assert found.order[:2] == (1, 2)
    assert set(found.order[2:4]) == {0, 3}  # both end at 6
    assert found.order[4] == 4
    assert found.finished_s == pytest.approx([2.0, 5.0, 6.0, 6.0, 10.0])
    states = [[item.state.value[0] for item in trials] for trials in sampler.seen]
    assert states[:4] == [[], ["R"], ["R", "C"], ["R", "C", "C"]]
    assert all(item.value("accuracy") is None for item in sampler.seen[1])


def test_no_more_trials_than_wanted_are_started() -> None:
    sampler = Listed(WORLD, range(12))
    found = replay(WORLD, sampler, n_trials=5, n_workers=4)
    assert len(found.order) == 5
    assert len(sampler.seen) == 5


def test_an_exhausted_table_ends_the_search() -> None:
    found = replay(WORLD, Listed(WORLD, range(12)), n_trials=50, n_workers=3)
    assert sorted(found.order) == list(range(12))


def test_what_is_not_in_the_table_is_refused_and_so_are_repeats() -> None:
    other = world(3, seed=8)
    with pytest.raises(ValueError, match="is not in the table"):
        replay(WORLD, Listed(other, [0]), n_trials=1)
    with pytest.raises(ValueError, match="was proposed before"):
        replay(WORLD, Listed(WORLD, [4, 4]), n_trials=2)


def test_a_failed_run_fails_after_its_time() -> None:
    found = records(4)
    found[0] |= {"failure": "divergence", "accuracy": [0.5, None, None], "wall_time_s": None}
    here = make_world("made", found, ABOUT, SPACE, FIDELITY)
    row = here.index[found[0]["fingerprint"]]
    sampler = Listed(here, [row, (row + 1) % 4])
    replay(here, sampler, n_trials=2)
    trial = sampler.seen[1][0]
    assert trial.state is TrialState.FAILED
    assert trial.failure.reason == "divergence"
    assert trial.value("accuracy") is None
    assert trial.measurements == ()


def test_a_stopped_trial_keeps_what_its_rung_measured_and_frees_its_worker() -> None:
    sampler = Listed(WORLD, range(3))
    asked: list[tuple[int, int]] = []

    def stop(trials: Sequence[Trial], number: int) -> bool:
        asked.append((number, len(trials[number].curve)))
        return number == 1 and len(trials[number].curve) == 2

    found = replay(WORLD, sampler, n_trials=3, seed=0, stop=stop)
    assert asked == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert found.stopped_at == {1: 1}
    times = [WORLD.rows[row].runs[0].wall_time_s for row in range(3)]
    assert found.finished_s == pytest.approx(np.cumsum([times[0], times[1] * 2 / 3, times[2]]))
    stopped = sampler.seen[2][1]
    assert stopped.state is TrialState.PRUNED
    assert stopped.rung.step == 8
    assert stopped.rung.n_steps == 12
    assert stopped.value("accuracy") == WORLD.rows[1].runs[0].curve[1].metrics["accuracy"]
