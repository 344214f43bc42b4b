"""Oracles: plain Optuna studies, and our own sampler asked in its own loop."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from autopeft.configuration import BoundSpace
from autopeft.exceptions import InfeasibleError, UsageError
from autopeft.integrations._foreign import named_objectives
from autopeft.integrations.optuna import NOTES_ATTRIBUTE, AutoPEFTSampler, search_space, suggest
from autopeft.objectives import Direction, hypervolume
from autopeft.samplers import make_sampler
from tests.samplers.problem import FIDELITY, Problem, run, small_space, tiny_space

SPACE = small_space()
PROBLEM = Problem(SPACE, seed=0)
NAMES = ("accuracy", "trainable_parameters")
BOTH = ["maximize", "minimize"]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    configuration = SPACE.compile(suggest(trial, SPACE))
    return PROBLEM.measure(configuration)[0], SPACE.parameter_count(configuration)


def searched(n: int, storage: str | None = None, *, seed: int = 0, name: str = "bayesian") -> optuna.Study:
    sampler = AutoPEFTSampler(SPACE, objectives=NAMES, sampler=name, seed=seed)
    study = optuna.create_study(
        directions=BOTH, sampler=sampler, storage=storage, study_name="plain", load_if_exists=True
    )
    study.optimize(objective, n_trials=n)
    return study


def params(study: optuna.Study) -> list[dict]:
    return [item.params for item in study.trials]


def test_a_plain_study_gets_exactly_what_our_own_loop_would() -> None:
    """The same sampler, asked by our loop on the same problem, proposes the same points in the same order."""
    objectives = named_objectives(NAMES, (Direction.MAXIMIZE, Direction.MINIMIZE))
    own = run(make_sampler("bayesian", space=SPACE, objectives=objectives, seed=0, fidelity=FIDELITY), PROBLEM, 14)
    assert params(searched(14)) == [dict(item.draft.params) for item in own]


@pytest.mark.slow
def test_it_beats_random_on_a_study_with_two_objectives() -> None:
    """Hypervolume over (accuracy, -log10 cost) after 25 trials, summed over three seeds."""

    def volume(study: optuna.Study) -> float:
        points = [(item.values[0], -math.log10(item.values[1])) for item in study.trials]
        return hypervolume(points, (0.5, -math.log10(60_000)))

    ours = sum(volume(searched(25, seed=seed)) for seed in range(3))
    random = sum(volume(searched(25, seed=seed, name="random")) for seed in range(3))
    assert ours > 1.1 * random


def test_a_study_in_a_database_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """A fresh sampler on a loaded study: the same trials as in one go."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for n in (9, 1, 3):
        searched(n, url)
    assert params(searched(0, url)) == params(searched(13))


def test_the_notes_of_a_suggestion_are_kept() -> None:
    notes = [item.system_attrs[NOTES_ATTRIBUTE]["source"] for item in searched(10).trials]
    assert notes[0] == "initial"
    assert notes[-1] in ("model", "space_filling")


def test_an_objective_may_ask_for_every_parameter_itself() -> None:
    """Flat code in Optuna's own words: what the point does not use is filled in and changes nothing."""

    def flat(trial: optuna.Trial) -> tuple[float, float]:
        values = {
            "lora": trial.suggest_categorical("lora", [False, True]),
            "adapter": trial.suggest_categorical("adapter", [False, True]),
            "rank": trial.suggest_int("rank", 1, 16, log=True),
            "parts": trial.suggest_categorical("parts", ["qv", "all"]),
            "bottleneck": trial.suggest_int("bottleneck", 1, 32, log=True),
            "rate": trial.suggest_float("rate", 0.0005, 0.02, log=True),
            **{f"layer_{i}": trial.suggest_categorical(f"layer_{i}", [False, True]) for i in range(3)},
        }
        trial.suggest_float("weight_decay", 0.0, 0.1)  # none of the space's
        configuration = SPACE.compile(SPACE.canonical(values))
        return PROBLEM.measure(configuration)[0], SPACE.parameter_count(configuration)

    sampler = AutoPEFTSampler(SPACE, objectives=NAMES)
    study = optuna.create_study(directions=BOTH, sampler=sampler)
    study.optimize(flat, n_trials=11)
    active = [{name: item.params[name] for name in SPACE.active(item.params)} for item in study.trials]
    assert active == params(searched(11))
    assert all("weight_decay" in item.params for item in study.trials)


def test_names_of_the_study_will_do() -> None:
    study = optuna.create_study(directions=BOTH, sampler=AutoPEFTSampler(SPACE))
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(list(NAMES))
    study.optimize(objective, n_trials=11)
    assert params(study) == params(searched(11))


def test_without_names_every_value_is_learnt() -> None:
    study = optuna.create_study(directions=BOTH, sampler=AutoPEFTSampler(SPACE))
    study.optimize(objective, n_trials=11)
    assert params(study)[:8] == params(searched(8))
    assert params(study) != params(searched(11))


def test_names_that_do_not_fit_the_study_are_refused() -> None:
    study = optuna.create_study(direction="maximize", sampler=AutoPEFTSampler(SPACE, objectives=NAMES))
    with pytest.raises(UsageError, match=r"got 2 .* for 1"):
        study.optimize(lambda trial: objective(trial)[0], n_trials=1)


def test_one_objective_with_pruning() -> None:
    def pruned(trial: optuna.Trial) -> float:
        value = PROBLEM.measure(SPACE.compile(suggest(trial, SPACE)))[0]
        trial.report(value, step=1)
        if trial.number % 3 == 2:
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(direction="maximize", sampler=AutoPEFTSampler(SPACE, objectives=["accuracy"]))
    study.optimize(pruned, n_trials=13)
    assert [item.state for item in study.trials].count(OptunaState.PRUNED) == 4
    assert len({str(sorted(item.params.items())) for item in study.trials}) == 13


def test_trials_on_their_way_are_not_proposed_again() -> None:
    sampler = AutoPEFTSampler(SPACE, objectives=NAMES)
    study = optuna.create_study(directions=BOTH, sampler=sampler)
    waiting = [study.ask() for _ in range(6)]
    points = [suggest(item, SPACE) for item in waiting]
    assert len({SPACE.compile(point).fingerprint for point in points}) == 6


def test_a_proposal_counts_before_its_parameters_are_asked_for() -> None:
    """The first parameter fixes the whole point: another worker sees it all, though Optuna has stored one value."""
    study = optuna.create_study(directions=BOTH, sampler=AutoPEFTSampler(SPACE, objectives=NAMES))
    first = study.ask()
    first.suggest_categorical("lora", [False, True])
    second = suggest(study.ask(), SPACE)
    assert SPACE.compile(second) != SPACE.compile(suggest(first, SPACE))


def test_failed_and_enqueued_trials_are_known() -> None:
    study = optuna.create_study(directions=BOTH, sampler=AutoPEFTSampler(SPACE, objectives=NAMES))
    known = params(searched(3))
    study.enqueue_trial(known[0])
    study.tell(study.ask(), state=OptunaState.FAIL)  # the enqueued one, which fails before it asks for anything
    trial = study.ask()
    assert suggest(trial, SPACE) == known[1]  # the design's second point: its first one is taken
    study.tell(trial, state=OptunaState.FAIL)
    assert suggest(study.ask(), SPACE) == known[2]


def test_threads_of_one_process_share_the_work() -> None:
    study = optuna.create_study(directions=BOTH, sampler=AutoPEFTSampler(SPACE, objectives=NAMES, sampler="random"))
    study.optimize(objective, n_trials=12, n_jobs=3)
    assert len({SPACE.compile(point).fingerprint for point in params(study)}) == 12


def test_an_exhausted_space_ends_the_study(caplog: pytest.LogCaptureFixture) -> None:
    space = tiny_space()

    def count(trial: optuna.Trial) -> float:
        return float(space.parameter_count(space.compile(suggest(trial, space))))

    sampler = AutoPEFTSampler(space, objectives=["trainable_parameters"], sampler="random")
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(count, n_trials=100)
    found = [space.compile(point).fingerprint for point in params(study)]
    assert len(set(found)) == 25  # counted by brute force in the samplers' contract
    assert len(found) == 26
    assert "exhausted" in caplog.text


def test_trials_that_are_no_points_teach_nothing(caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study(directions=BOTH, sampler=AutoPEFTSampler(SPACE, objectives=NAMES))
    study.add_trial(
        optuna.trial.create_trial(
            params={"rate": 5.0}, distributions={"rate": optuna.distributions.FloatDistribution(0, 9)}, values=[1, 1]
        )
    )
    study.optimize(objective, n_trials=3)
    # Said once, not with every later suggestion.
    assert caplog.text.count("Trial 0 is no feasible point of search space small") == 1
    assert params(study)[1:] == params(searched(3))


def test_optunas_own_samplers_can_use_the_helper() -> None:
    def careful(trial: optuna.Trial) -> tuple[float, float]:
        try:
            return objective(trial)
        except InfeasibleError as error:
            raise optuna.TrialPruned from error

    study = optuna.create_study(directions=BOTH, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(careful, n_trials=20)
    for item in study.trials:
        assert set(item.params) == set(SPACE.active(item.params))
        assert {key: value for key, value in search_space(SPACE).items() if key in item.params} == item.distributions


def test_a_sampler_can_be_sent_to_another_process() -> None:
    study = searched(9)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(objective, n_trials=2)
    assert params(study) == params(searched(11))


@pytest.mark.parametrize("space", [SPACE, tiny_space()])
def test_distributions_are_the_spaces_own(space: BoundSpace) -> None:
    found = search_space(space)
    assert list(found) == [item.name for item in space.parameters]
    for item in space.parameters:
        for value in (item.values or (item.low, item.high))[:3]:
            assert found[item.name]._contains(found[item.name].to_internal_repr(value))
