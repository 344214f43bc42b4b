import numpy as np
import pytest

from benchmarks.replay.contestants import CONTESTANTS
from benchmarks.replay.report import Contest, mean_duration, report, table
from benchmarks.replay.simulate import Replay, replay
from tests.benchmarks.tables import world

WORLD = world(60)


def runs(name: str, n: int, *, workers: int = 1, seeds: int = 3) -> dict[int, Replay]:
    return {
        seed: replay(WORLD, CONTESTANTS[name](WORLD, seed), n_trials=n, n_workers=workers, seed=seed)
        for seed in range(seeds)
    }


@pytest.fixture(scope="module")
def contest() -> Contest:
    return Contest(world=WORLD, workers=1, runs={"random": runs("random", 60), "nsga2": runs("nsga2", 42)})


def test_means_are_taken_at_the_number_of_trials(contest: Contest) -> None:
    found = contest.at("nsga2", 40)
    wanted = {seed: WORLD.hypervolumes(run.order[:40])[-1] for seed, run in contest.runs["nsga2"].items()}
    assert found == pytest.approx(wanted)
    assert contest.at("nsga2", 60) == {}
    assert contest.at("random", 100) == pytest.approx({0: 1.0, 1: 1.0, 2: 1.0})  # the table is exhausted


def test_nothing_is_said_about_the_time_after_a_search(contest: Contest) -> None:
    unit = mean_duration(WORLD)
    values = contest.at_times("nsga2", [5 * unit, 39 * unit, 200 * unit])
    assert not np.isnan(values[:, :2]).any()
    assert np.isnan(values[:, 2]).all()
    assert (contest.at_times("random", [200 * unit]) == pytest.approx(1.0)) is True


def test_the_quality_of_a_choice_is_that_of_the_seed_seen(contest: Contest) -> None:
    run = contest.runs["random"][1]
    values = [WORLD.rows[row].runs[1].value for row in run.order[:20]]
    assert contest.qualities("random", 20)[1] == WORLD.truth[run.order[int(np.argmax(values))]]


def test_the_page_names_every_sampler_and_every_test(contest: Contest) -> None:
    ours = {"bayesian": runs("random", 42), "random": contest.runs["random"], "nsga2": contest.runs["nsga2"]}
    found = {("made", name, 1, "none"): item for name, item in ours.items()}
    found["made", "random", 4, "none"] = runs("random", 30, workers=4)
    text = report([WORLD], found)
    assert text.count("| Optuna NSGA-II, population 10 |") >= 4
    assert "### made, 4 workers" in text
    assert "Trials to reach 1.0000" in text
    assert "In short" in text
    assert "nan" not in text
    lines = [line for line in text.splitlines() if line.startswith("| random | 40 |")]
    assert len(lines) == 1
    assert "+0.0000 [+0.0000, +0.0000]" in lines[0]  # "ours" is random search with the same seeds
    assert "no difference shown" in lines[0]


def test_a_pruner_is_compared_with_its_absence() -> None:
    """Worked by hand: of two trials in 10 s, the second stopped half-way, which was the better one."""
    order = (int(np.nanargmin(WORLD.truth)), int(np.nanargmax(WORLD.truth)))
    plain = Replay(order=order, finished_s=(5.0, 10.0))
    pruned = Replay(order=order, finished_s=(5.0, 7.5), stopped_at={1: 0})
    few = WORLD.restricted(lambda row: row in [WORLD.rows[i] for i in order])
    back = tuple(few.index[WORLD.rows[i].point.fingerprint] for i in order)
    runs_of = {
        ("made", "bayesian", 1, "none"): {0: Replay(order=back, finished_s=plain.finished_s)},
        ("made", "bayesian", 1, "pareto"): {0: Replay(order=back, finished_s=pruned.finished_s, stopped_at={1: 0})},
    }
    text = report([few], runs_of)
    (line,) = [item for item in text.splitlines() if item.startswith("| pareto | 1 | 40 |")]
    curve, whole = few.hypervolumes(back, (1,)), few.hypervolumes(back)
    lost = whole[1] - curve[1]
    assert f"| 50% | 75% | {curve[1]:.3f} | {lost:.3f} | 0.000 |" in line


def test_tables_are_markdown() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n|---|---:|\n| x | 1 |"
