import json
from dataclasses import replace

from autopeft.objectives import COSTS, Constraint, Direction, Objective
from autopeft.study import Fidelity, Study, StudySpec, TrialKind, TrialState
from tests.study.builders import ACCURACY, make_spec, make_trial


def test_spec_round_trips_through_json() -> None:
    spec = make_spec()
    again = StudySpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.differences(spec) == []


def test_spec_of_an_older_version_has_no_pruner_and_confirms_at_its_own_fidelity() -> None:
    data = make_spec().to_dict()
    del data["pruner"], data["confirm_fidelity"]
    assert StudySpec.from_dict(data) == make_spec()
    full = Fidelity(train_examples=900, epochs=3)
    changed = replace(make_spec(), pruner="pareto", confirm_fidelity=full)
    assert StudySpec.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
    assert make_spec().differences(changed) == [
        "confirm_fidelity.epochs: None here, 3 there",
        "confirm_fidelity.train_examples: None here, 900 there",
        "pruner: 'none' here, 'pareto' there",
    ]


def test_constraints_are_part_of_what_defines_a_study() -> None:
    assert "constraints" not in make_spec().to_dict()  # settings from before there were constraints stay what they are
    bounded = make_spec(constraints=(Constraint.parse("wall_time_s<=30"), Constraint.parse("export_class=lora")))
    assert StudySpec.from_dict(json.loads(json.dumps(bounded.to_dict()))) == bounded
    assert make_spec().differences(bounded) != []


def test_differences_name_the_key_and_both_values() -> None:
    other = make_spec(budget=7, task={"name": "toy", "content_hash": "u"})
    assert make_spec().differences(other) == [
        "budget: 5000 here, 7 there",
        "task.content_hash: 't' here, 'u' there",
    ]


def test_trials_are_filtered_by_kind_and_state() -> None:
    trials = (make_trial(0, 0.5, 10, kind=TrialKind.BASELINE), make_trial(1, None, 10), make_trial(2, 0.6, 10))
    study = Study(spec=make_spec(), trials=trials)
    assert [item.number for item in study.of_kind(TrialKind.SEARCH)] == [1, 2]
    assert [item.number for item in study.of_kind(TrialKind.SEARCH, state=TrialState.COMPLETE)] == [2]


def test_rewards_are_part_of_what_defines_a_study_and_may_be_absent() -> None:
    assert "rewards" not in make_spec().to_dict()
    entry = {"reference": "memorization", "direction": "minimize", "unit": "", "settings": {"share": 0.3}}
    spec = make_spec(rewards={"memorization": entry})
    assert StudySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    other = make_spec(rewards={"memorization": {**entry, "settings": {"share": 0.2}}})
    assert spec.differences(other) == ["rewards.memorization.settings.share: 0.3 here, 0.2 there"]


def test_secondary_is_all_but_the_first_objective_and_the_parameters() -> None:
    latency = {"reference": "latency_s", "direction": "minimize", "unit": "s", "settings": {}}
    wall_time = COSTS["wall_time_s"]
    objectives = (ACCURACY, COSTS["trainable_parameters"], wall_time)
    spec = make_spec(objectives=objectives, rewards={"latency_s": latency, "wall_time_s": latency})
    assert spec.secondary == (wall_time, Objective(name="latency_s", direction=Direction.MINIMIZE, unit="s"))
    assert make_spec().secondary == ()
