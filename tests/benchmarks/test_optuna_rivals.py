import numpy as np
import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from benchmarks.replay.optuna_rivals import OptunaRival, Settings
from benchmarks.replay.simulate import replay
from benchmarks.replay.world import make_world
from tests.benchmarks.tables import ABOUT, SPACE, records, world
from tests.samplers.problem import FIDELITY

WORLD = world(40)
ALL = [
    Settings(name="tpe", is_exact=True),
    Settings(name="tpe"),
    Settings(name="nsga2", population=6),
    Settings(name="gp", is_exact=True, n_initial=6, has_design=True),
    Settings(name="gp", n_initial=13),
]


@pytest.mark.parametrize("settings", ALL, ids=str)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_is_evaluated_once_and_told_as_it_was(settings: Settings, workers: int) -> None:
    """Optuna's own study must hold exactly what the replay did: the rows' params, values and order."""
    rival = OptunaRival(WORLD, settings, seed=0)
    n = 14
    found = replay(WORLD, rival, n_trials=n, n_workers=workers, seed=0)
    assert len(set(found.order)) == n
    rival._learn(rival_trials := _finished(found.order))
    told = [item for item in rival._study.get_trials() if item.state is OptunaState.COMPLETE]
    assert len(told) == len(rival_trials) == n
    for item in told:
        fingerprint = SPACE.compile({k: item.params[k] for k in SPACE.active(item.params)}).fingerprint
        row = WORLD.index[fingerprint]
        assert row in found.order
        assert item.values == pytest.approx([WORLD.rows[row].runs[0].value, -WORLD.log_costs[row]])


def _finished(order: tuple[int, ...]) -> list:
    """The trials of a replay of these rows."""
    from benchmarks.replay.simulate import _Search

    class Again:
        def ask(self, trials, n):
            from autopeft.samplers import Suggestion

            return [Suggestion(params=WORLD.rows[order[len(trials)]].point.params)]

    search = _Search(WORLD, 0, 0)
    for _ in order:
        search.start(Again())
        while search.events:
            search.advance(None)
    return search.trials


def test_a_failed_row_is_told_as_the_worst_so_far() -> None:
    found = records(12)
    for item in found[:2]:
        item |= {"failure": "divergence", "accuracy": [0.4, None, None], "wall_time_s": None}
    here = make_world("made", found, ABOUT, SPACE, FIDELITY)
    failed = here.index[found[0]["fingerprint"]]
    rival = OptunaRival(here, Settings(name="tpe", is_exact=True), seed=0)
    done = replay(here, rival, n_trials=12, seed=0)
    values = [here.rows[row].runs[0].value for row in done.order]
    position = done.order.index(failed)
    told = {item.values[1]: item for item in rival._study.get_trials() if item.state is OptunaState.COMPLETE}
    if 0 < position < 11:
        item = told[-here.log_costs[failed]]
        assert item.values[0] == min(value for value in values[:position] if value is not None)


def test_exact_gp_takes_the_row_of_the_largest_acquisition_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: Optuna's own acquisition function at every row, one by one."""
    seen: list[tuple[float, float]] = []
    import benchmarks.replay.optuna_rivals as module

    original = module._RowGPSampler._optimize_acqf

    def spy(self, acqf, best_params):
        chosen = original(self, acqf, best_params)
        params = [self._rival._flat[row] for row in self._rival._left]
        rows = acqf.search_space.get_normalized_params(params, params)
        seen.append(
            (
                float(acqf.eval_acqf_no_grad(chosen[None])[0]),
                max(float(acqf.eval_acqf_no_grad(row[None])[0]) for row in rows),
            )
        )
        return chosen

    monkeypatch.setattr(module._RowGPSampler, "_optimize_acqf", spy)
    rival = OptunaRival(WORLD, Settings(name="gp", is_exact=True, n_initial=5), seed=1)
    replay(WORLD, rival, n_trials=9, seed=1)
    assert len(seen) == 4
    for value, best in seen:
        assert value == pytest.approx(best, rel=1e-9)


def test_exact_samplers_name_the_row_they_chose() -> None:
    """What Optuna proposed and what stands for it are the same configuration."""
    for name in ("tpe", "gp"):
        rival = OptunaRival(WORLD, Settings(name=name, is_exact=True, n_initial=5), seed=2)
        found = replay(WORLD, rival, n_trials=10, seed=2)
        withdrawn = [item for item in rival._study.get_trials() if item.state is OptunaState.FAIL]
        asked = [WORLD.rows[row].point.configuration for row in found.order[5:]]
        assert len(withdrawn) == len(asked)
        for item, configuration in zip(withdrawn, asked, strict=True):
            proposed = SPACE.compile({k: item.params[k] for k in SPACE.active(item.params)})
            assert proposed.placements == configuration.placements
            assert proposed.learning_rate == pytest.approx(configuration.learning_rate, rel=1e-9)


def test_nsga2_builds_generations_of_what_was_evaluated() -> None:
    rival = OptunaRival(WORLD, Settings(name="nsga2", population=5), seed=0)
    replay(WORLD, rival, n_trials=16, seed=0)
    done = [item for item in rival._study.get_trials() if item.state is OptunaState.COMPLETE]
    generations = [item.system_attrs["NSGAIISampler:generation"] for item in done]
    assert generations == [k // 5 for k in range(15)]


def test_repetitions_differ_and_can_be_repeated() -> None:
    def order(seed: int) -> tuple[int, ...]:
        return replay(WORLD, OptunaRival(WORLD, Settings(name="tpe", is_exact=True), seed=seed), n_trials=15).order

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_optuna_stays_as_loud_as_it_was() -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    replay(WORLD, OptunaRival(WORLD, Settings(name="nsga2"), seed=0), n_trials=2)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert np.isfinite(WORLD.truth).all()
