from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autopeft.configuration import known_costs
from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.modules import MODULES
from autopeft.objectives import COSTS
from autopeft.orchestrate import SearchSettings, prepare, resume_command
from autopeft.orchestrate._fidelity import RUNGS, fidelity_share, resolve_fidelity, study_pruner
from autopeft.pruners import NoPruner
from autopeft.study import CurvePoint, Fidelity, StudySpec, TrialState
from tests.configuration.examples import bert_shapes
from tests.orchestrate.test_search import settings_in
from tests.pruners.simulated import make_trial, make_world
from tests.study.builders import ACCURACY
from tests.training.toys import toy_task


def settings(**changes: object) -> SearchSettings:
    return SearchSettings(task="toy", **{"train_examples": 100, "epochs": 3, **changes})  # type: ignore[arg-type]


TASK = toy_task(n_train=200, n_search=120)


def test_full_trains_every_trial_to_its_end() -> None:
    found = resolve_fidelity(settings(fidelity="full"), TASK)
    assert (found.search, found.confirm) == (Fidelity(train_examples=100, epochs=3), None)
    assert (found.pruner, found.rungs, found.rung_examples) == ("none", (), None)


def test_auto_measures_rungs_on_a_part_of_the_split_that_costs_little() -> None:
    found = resolve_fidelity(settings(fidelity="auto"), TASK)
    assert (found.search, found.confirm) == (Fidelity(train_examples=100, epochs=3), None)
    # Nineteen steps: no rung has many, and a ninth of them says nothing.
    assert (found.pruner, found.rungs, found.rung_examples) == ("pareto", (1 / 3, 2 / 3), 64)
    long = resolve_fidelity(settings(fidelity="auto", train_examples=200, epochs=8), TASK)
    # 1,600 examples trained; a forward pass is a third of a training step.
    assert (long.rungs, long.rung_examples) == ((1 / 3, 2 / 3), 100)
    assert 100 / (3 * 1600) < 0.025
    longest = resolve_fidelity(settings(fidelity="auto", epochs=50), TASK)
    assert (longest.rungs, longest.rung_examples) == (RUNGS, 120)


@pytest.mark.parametrize(("text", "n"), [("low", 34), ("25%", 25), ("0.5", 50), ("1", 100)])
def test_a_lower_fidelity_trains_on_fewer_examples_and_confirms_in_full(text: str, n: int) -> None:
    found = resolve_fidelity(settings(fidelity=text), TASK)
    full = Fidelity(train_examples=100, epochs=3)
    assert found.search == Fidelity(train_examples=n, epochs=3)
    assert found.confirm == (None if n == 100 else full)
    assert found.pruner == "none"
    assert resolve_fidelity(settings(fidelity=text, pruner="median"), TASK).rungs == RUNGS[1:]


def test_examples_that_are_kept_for_rewards_are_not_trained_on() -> None:
    assert resolve_fidelity(settings(fidelity="full", train_examples=None), TASK, 150).search.train_examples == 50


@pytest.mark.parametrize("text", ["half", "0", "120%", "-1", "nan", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--fidelity is auto, full, low, or the share"):
        fidelity_share(text)


def test_unknown_pruner_is_named() -> None:
    with pytest.raises(UnknownNameError, match="paretto"):
        resolve_fidelity(settings(pruner="paretto"), TASK)


def test_the_study_and_the_command_that_resumes_it_know_fidelity_and_pruner(tmp_path) -> None:
    specs = {}
    for fidelity, pruner in (("full", None), ("auto", None), ("full", "median"), ("low", None)):
        chosen = settings_in(tmp_path, fidelity=fidelity, pruner=pruner)
        spec = prepare(chosen).spec
        specs[fidelity, pruner] = spec
        assert StudySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
        command = resume_command(chosen)
        default = SearchSettings(task="x")
        assert ("--fidelity" in command) == (fidelity != default.fidelity)
        assert ("--pruner" in command) == (pruner is not None)
    assert len({spec.name for spec in specs.values()}) == 4
    assert [specs[key].pruner for key in specs] == ["none", "pareto", "median", "none"]
    assert "rungs" not in specs["full", None].training
    assert specs["auto", None].training["rungs"] == list(RUNGS[1:])
    assert specs["low", None].confirm_fidelity == Fidelity(train_examples=64, epochs=1)


def test_pruner_of_a_study_decides_at_its_rungs_and_knows_known_costs() -> None:
    """Oracle: the closed forms."""
    shapes = bert_shapes()
    fidelity = Fidelity(train_examples=720, epochs=1)
    objectives = (ACCURACY, COSTS["stored_bytes"])
    spec = StudySpec(
        name="s", task={}, backbone={}, space={}, budget=1, budget_text="1", sampler="random", objectives=objectives,
        fidelity=fidelity, training={"batch_size": 8, "rungs": [1 / 9, 1 / 3]}, seed=0, pruner="pareto",
    )  # fmt: skip
    pruner = study_pruner(spec, shapes)
    assert (pruner.name, pruner.rungs) == ("pareto", (10, 30))
    assert study_pruner(replace(spec, pruner="none"), shapes) == NoPruner()
    epochs = replace(spec, fidelity=replace(fidelity, epochs=2))
    # The end of the first epoch is measured anyway.
    assert study_pruner(epochs, shapes).rungs == (20, 60, 90)
    assert study_pruner(replace(epochs, pruner="mo_asha"), shapes).rungs == (20, 60)

    def stored(trial):
        costs = known_costs(trial.configuration, shapes, MODULES)
        return replace(
            trial, measurements=tuple(replace(item, costs={**item.costs, **costs}) for item in trial.measurements)
        )

    # Equal parameters, but number + 1 is the rank: the bytes grow with it.
    world = make_world(0, 10, noise=0.002)
    done = [stored(make_trial(10 + i, 100, row)) for i, row in enumerate(world.scores)]
    dear, cheap = (make_trial(number, 100, (0.5,), state=TrialState.RUNNING) for number in (99, 1))
    assert isinstance(dear.curve[0], CurvePoint)
    assert [item.stop for item in pruner.decide([*done, dear, cheap], [99, 1])] == [True, False]
