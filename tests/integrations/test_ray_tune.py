"""The searcher by itself, against our own loop; and inside real Tune runs."""

from __future__ import annotations

import json
import math
import pickle
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray import tune

    from autopeft.integrations.ray_tune import AutoPEFTSearcher

from autopeft.exceptions import UsageError
from autopeft.samplers import make_sampler
from autopeft.study import TrialState
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, Problem, run, small_space, tiny_space

SPACE = small_space()
PROBLEM = Problem(SPACE, seed=0)
METRICS: dict[str, Any] = {"metric": ["accuracy", "trainable_parameters"], "mode": ["max", "min"]}


def drive(searcher: AutoPEFTSearcher, n: int, *, first: int = 0) -> list[dict]:
    """Suggest, evaluate, report, as Tune does with one trial at a time."""
    found = []
    for i in range(first, first + n):
        config = searcher.suggest(f"trial_{i}")
        searcher.on_trial_complete(f"trial_{i}", {"accuracy": PROBLEM.measure(SPACE.compile(config))[0], "done": True})
        found.append(config)
    return found


def own(n: int) -> list[dict]:
    sampler = make_sampler("bayesian", space=SPACE, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY)
    return [dict(item.draft.params) for item in run(sampler, PROBLEM, n)]


def test_it_proposes_exactly_what_our_own_loop_would() -> None:
    assert drive(AutoPEFTSearcher(SPACE, **METRICS), 12) == own(12)


def test_a_restored_searcher_goes_on_as_the_old_one_would(tmp_path: Path) -> None:
    first = AutoPEFTSearcher(SPACE, **METRICS)
    begun = drive(first, 9)
    first.save(str(tmp_path / "state.json"))
    second = AutoPEFTSearcher(SPACE, **METRICS)
    second.restore(str(tmp_path / "state.json"))
    assert begun + drive(second, 2, first=9) == own(11)


def test_it_survives_pickling() -> None:
    first = AutoPEFTSearcher(SPACE, **METRICS)
    begun = drive(first, 9)
    assert begun + drive(pickle.loads(pickle.dumps(first)), 1, first=9) == own(10)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("no json", "Expecting value"),
        ('{"schema_version": 2, "records": []}', "schema version 2, not 1"),
        ('{"schema_version": 1, "records": [{"trial_id": "a", "params": {"rank": 3}}]}', "not of search space small"),
        ('{"schema_version": 1, "records": [{"x": 1}]}', "unexpected keyword"),
        ("[]", "indices"),
    ],
)
def test_a_file_that_is_no_state_is_refused_and_nothing_is_lost(tmp_path: Path, content: str, problem: str) -> None:
    searcher = AutoPEFTSearcher(SPACE, **METRICS)
    begun = drive(searcher, 2)
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=problem):
        searcher.restore(str(path))
    assert begun + drive(searcher, 1, first=2) == own(3)


def test_what_tune_stops_early_is_pruned_once_another_trial_went_further() -> None:
    """Tune tells every result by `on_trial_result` but the one at which it stops a trial."""
    searcher = AutoPEFTSearcher(SPACE, metric="accuracy", mode="max")
    for trial_id, last, is_told in (("stopped", 1, False), ("short", 1, True), ("long", 3, False)):
        searcher.suggest(trial_id)
        for i in range(1, last + is_told):
            searcher.on_trial_result(trial_id, {"accuracy": 0.5, "training_iteration": i})
        searcher.on_trial_complete(trial_id, {"accuracy": 0.5, "training_iteration": last, "done": True})
    states = [item.state for item in searcher._trials()]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE, TrialState.COMPLETE]


def test_trials_at_the_same_time_are_different() -> None:
    searcher = AutoPEFTSearcher(SPACE, **METRICS)
    configs = [searcher.suggest(f"trial_{i}") for i in range(6)]
    assert len({SPACE.compile(item).fingerprint for item in configs}) == 6


def test_metric_and_mode_may_come_from_tune() -> None:
    searcher = AutoPEFTSearcher(SPACE)
    with pytest.raises(UsageError, match="no metric to search for"):
        searcher.suggest("trial_0")
    assert searcher.set_search_properties("accuracy", "max", {"n_epochs": 3})
    assert SPACE.contains(searcher.suggest("trial_0"))


@pytest.mark.parametrize(
    "given", [{"metric": "accuracy", "mode": "best"}, {"metric": ["a", "b"], "mode": ["max"]}, {"metric": "accuracy"}]
)
def test_a_mode_that_does_not_fit_is_refused(given: dict) -> None:
    with pytest.raises(UsageError, match="every metric needs a mode, max or min"):
        AutoPEFTSearcher(SPACE, **given)


def test_a_param_space_that_overlaps_ours_is_refused() -> None:
    with pytest.raises(UsageError, match="param_space sets rank, which search space small varies"):
        AutoPEFTSearcher(SPACE, **METRICS).set_search_properties(None, None, {"rank": 3})


@pytest.mark.parametrize("result", [None, {"accuracy": math.nan}, {"accuracy": math.inf}, {"loss": 1.0}])
def test_trials_without_a_result_do_not_stop_it(result: dict | None) -> None:
    searcher = AutoPEFTSearcher(SPACE, **METRICS)
    drive(searcher, 8)
    config = searcher.suggest("bad")
    searcher.on_trial_complete("bad", result, error=result is None)
    after = drive(searcher, 2, first=9)
    assert len({SPACE.compile(item).fingerprint for item in [config, *after]}) == 3


def test_a_trial_of_somebody_else_is_only_noted(caplog: pytest.LogCaptureFixture) -> None:
    AutoPEFTSearcher(SPACE, **METRICS).on_trial_complete("stranger", {"accuracy": 1.0})
    assert "stranger was not suggested" in caplog.text


def test_an_exhausted_space_finishes_the_search() -> None:
    space = tiny_space()
    searcher = AutoPEFTSearcher(space, metric="trainable_parameters", mode="min", sampler="random")
    for i in range(25):
        searcher.on_trial_complete(f"trial_{i}", {"done": True} if searcher.suggest(f"trial_{i}") else None)
    assert searcher.suggest("trial_25") == AutoPEFTSearcher.FINISHED


def test_points_evaluated_elsewhere_teach() -> None:
    searcher = AutoPEFTSearcher(SPACE, **METRICS)
    points = [item.draft.params for item in run(_random(), PROBLEM, 9)]
    for point in points:
        searcher.add_evaluated_point(point, PROBLEM.measure(SPACE.compile(point))[0])
    assert searcher.suggest("trial_0") not in [dict(point) for point in points]
    with pytest.raises(UsageError, match="no feasible point"):
        searcher.add_evaluated_point({"rank": 3}, 0.5)


def _random() -> Any:
    return make_sampler("random", space=SPACE, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY)


@pytest.fixture
def _running_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One Ray of our own, without a dashboard, a token file or a long socket path; nothing is left running."""
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray and its pool of sockets and processes
        ray.init(
            num_cpus=1, include_dashboard=False, _temp_dir=folder, log_to_driver=False, object_store_memory=80 * 2**20
        )
        try:
            yield
        finally:
            ray.shutdown()


def _trainable(config: dict) -> None:
    """Three reports of a growing accuracy, worse for higher rates."""
    reached = 0.9 - 20 * abs(config["rate"] - 2e-3)
    for i in range(3):
        tune.report({"accuracy": reached * (i + 1) / 3})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_running_ray")
def test_a_real_tune_run(tmp_path: Path) -> None:
    searcher = AutoPEFTSearcher(SPACE, **METRICS)
    tuner = tune.Tuner(
        _trainable,
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=10, max_concurrent_trials=1),
        run_config=tune.RunConfig(name="real", storage_path=str(tmp_path), verbose=0),
        param_space={"constant": 3},
    )
    results = tuner.fit()
    assert not results.errors
    configs = [dict(item.config) for item in results]
    assert {item.pop("constant") for item in configs} == {3}
    assert len({SPACE.compile(item).fingerprint for item in configs}) == 10
    # Told the same results, our own searcher proposes the same, the model's two included.
    again = AutoPEFTSearcher(SPACE, **METRICS)
    for i in range(10):
        config = again.suggest(f"trial_{i}")
        assert config in configs
        reached = 0.9 - 20 * abs(config["rate"] - 2e-3)
        again.on_trial_complete(f"trial_{i}", {"accuracy": reached, "done": True})
    [state] = list((tmp_path / "real").glob("searcher-state-*.pkl"))
    records = json.loads(state.read_text())["records"]
    assert [item["state"] for item in records] == ["COMPLETE"] * 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_running_ray")
def test_what_a_scheduler_stops_is_pruned_and_a_crash_has_failed(tmp_path: Path) -> None:
    def trainable(config: dict) -> None:
        if config["rate"] > 6e-3:
            raise RuntimeError("boom")
        _trainable(config)

    searcher = AutoPEFTSearcher(SPACE, sampler="random", seed=1)
    scheduler = tune.schedulers.ASHAScheduler(max_t=3, grace_period=1, reduction_factor=2)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            metric="accuracy",
            mode="max",
            num_samples=10,
            max_concurrent_trials=1,
        ),
        run_config=tune.RunConfig(name="asha", storage_path=str(tmp_path), verbose=0),
        param_space={"constant": 3},
    )
    results = tuner.fit()
    [state] = list((tmp_path / "asha").glob("searcher-state-*.pkl"))
    records = json.loads(state.read_text())["records"]
    again = AutoPEFTSearcher(SPACE, metric="accuracy", mode="max")
    again.restore(str(state))
    states = {json.dumps(dict(item.draft.params), sort_keys=True): item.state for item in again._trials()}
    assert len(states) == len(records) == 10
    for item in results:
        config = {name: value for name, value in item.config.items() if name != "constant"}
        found = states[json.dumps(config, sort_keys=True)]
        if item.error is not None:
            assert found is TrialState.FAILED
        else:
            assert found is (TrialState.PRUNED if item.metrics["training_iteration"] < 3 else TrialState.COMPLETE)
    assert set(states.values()) == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED}
