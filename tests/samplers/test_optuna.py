"""Oracle: Optuna itself, asked live, without being rebuilt between asks."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autopeft.configuration import Parameter
from autopeft.samplers import make_sampler
from autopeft.samplers._history import History
from autopeft.samplers._optuna import NSGA2_POPULATION, OptunaSampler, _quiet_optuna, optuna_distribution
from autopeft.study import TrialKind, TrialState
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, Problem, make_trial, run, small_space

SPACE = small_space()


def rebuilt(name: str, trials: list, seed: int = 0) -> optuna.Study:
    sampler = OptunaSampler(name, space=SPACE, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY)
    history = History.of(trials, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY)
    with _quiet_optuna():
        return sampler._rebuild(history, seed)


@pytest.fixture(scope="module")
def trials() -> list:
    return run(
        make_sampler("random", space=SPACE, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY),
        Problem(SPACE, seed=0),
        25,
    )


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_the_rebuilt_study_holds_what_was_measured(name: str, trials: list) -> None:
    study = rebuilt(name, trials)
    assert len(study.trials) == 25
    for ours, theirs in zip(trials, study.trials, strict=True):
        assert theirs.values[0] == ours.value("accuracy")
        assert theirs.values[1] < -3  # log10 of the cost, to be maximised
        assert ours.draft.params.items() <= theirs.params.items()
        assert theirs.params.keys() == {item.name for item in SPACE.parameters}
    assert [str(item) for item in study.directions] == [str(optuna.study.StudyDirection.MAXIMIZE)] * 2


def test_silent_parameters_do_not_depend_on_the_numbering(trials: list) -> None:
    moved = [make_trial(t.number + 3, t.configuration, SPACE, params=t.draft.params, values=(0.6, 1.0)) for t in trials]
    before = [trial.params for trial in rebuilt("tpe", trials).trials]
    assert [trial.params for trial in rebuilt("tpe", moved).trials] == before


def test_failures_and_unfinished_trials(trials: list) -> None:
    changed = [
        make_trial(0, trials[0].configuration, SPACE, params=trials[0].draft.params, state=TrialState.FAILED),
        make_trial(1, trials[1].configuration, SPACE, params=trials[1].draft.params, state=TrialState.RUNNING),
        *trials[2:],
    ]
    failed, running, *_ = rebuilt("tpe", changed).trials
    assert failed.state is optuna.trial.TrialState.COMPLETE
    assert failed.values[0] == min(trial.value("accuracy") for trial in trials[2:])
    assert running.state is optuna.trial.TrialState.RUNNING


def test_generations_are_as_in_a_live_study(trials: list) -> None:
    """A live NSGA-II numbers its generations by completed trials; asked with our population it does so here."""
    sampler = optuna.samplers.NSGAIISampler(population_size=NSGA2_POPULATION, seed=0)
    with _quiet_optuna():
        live = optuna.create_study(directions=["maximize"] * 2, sampler=sampler)
        for i in range(25):
            trial = live.ask({"x": FloatDistribution(0, 1)})
            live.tell(trial, [trial.params["x"], float(i)])
    key = "NSGAIISampler:generation"
    ours = [trial.system_attrs[key] for trial in rebuilt("nsga2", trials).trials]
    assert ours == [trial.system_attrs[key] for trial in live.trials]


def test_crossover_starts_after_one_population(trials: list) -> None:
    """From then on every value comes from two parents or, rarely, from mutation; before that from uniform draws."""
    study = rebuilt("nsga2", trials[:NSGA2_POPULATION])
    with _quiet_optuna():
        distributions = {item.name: optuna_distribution(item) for item in SPACE.parameters}
        children = [study.ask(distributions).params for _ in range(20)]
    pool = {(name, value) for trial in study.trials[:NSGA2_POPULATION] for name, value in trial.params.items()}
    shares = [sum((name, value) in pool for name, value in child.items()) / len(child) for child in children]
    assert sum(shares) / len(shares) > 0.7
    rates = {trial.params["rate"] for trial in study.trials[:NSGA2_POPULATION]}
    assert any(child["rate"] in rates for child in children)


def test_baselines_that_the_space_can_say_are_shown(trials: list) -> None:
    baseline = make_trial(25, SPACE.compile(trials[0].draft.params), SPACE, values=(0.7, 1.0), kind=TrialKind.BASELINE)
    assert baseline.draft.params is None
    study = rebuilt("tpe", [*trials[1:], baseline])
    assert len(study.trials) == 25
    point = {name: study.trials[-1].params[name] for name in SPACE.active(study.trials[-1].params)}
    assert SPACE.compile(point) == baseline.configuration


def test_tpe_learns(trials: list) -> None:
    """Accuracy that falls with the distance from one learning rate: proposals come closer to it than uniform draws."""
    taught = [
        make_trial(
            t.number,
            t.configuration,
            SPACE,
            params=t.draft.params,
            values=(0.9 - abs(t.configuration.learning_rate - 2e-3) * 30, 1.0),
        )
        for t in trials
    ]
    sampler = make_sampler("tpe", space=SPACE, objectives=(ACCURACY,), seed=0, fidelity=FIDELITY)
    uniform = make_sampler("random", space=SPACE, objectives=(ACCURACY,), seed=0, fidelity=FIDELITY)

    def mean_error(proposals: list) -> float:
        return sum(abs(SPACE.compile(item.params).learning_rate - 2e-3) for item in proposals) / len(proposals)

    assert mean_error(sampler.ask(taught, 12)) < 0.7 * mean_error(uniform.ask(taught, 12))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (
            Parameter(name="a", type="float", low=5e-4, high=2e-2, log=True),
            FloatDistribution(low=5e-4, high=2e-2, log=True),
        ),
        (Parameter(name="a", type="int", low=1, high=64, log=True), IntDistribution(low=1, high=64, log=True)),
        (Parameter(name="a", type="int", low=0, high=9), IntDistribution(low=0, high=9)),
        (Parameter(name="a", type="bool"), CategoricalDistribution((False, True))),
        (Parameter(name="a", type="categorical", choices=("x", "y")), CategoricalDistribution(("x", "y"))),
    ],
)
def test_parameters_become_distributions(parameter: Parameter, expected: object) -> None:
    assert optuna_distribution(parameter) == expected


def test_optuna_stays_quiet_and_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    level = optuna.logging.get_verbosity()
    make_sampler("tpe", space=SPACE, objectives=(ACCURACY,), seed=0, fidelity=FIDELITY).ask([], 2)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == level
