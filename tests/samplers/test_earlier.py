"""What is kept of a study; the oracle is the study itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from autopeft.objectives import non_dominated_mask
from autopeft.samplers._earlier import MAX_TRIALS, EarlierStudy
from autopeft.study import Fidelity, TrialKind, TrialState
from tests.integrations.studies import make_study
from tests.samplers.problem import ACCURACY, PARAMETERS, SECONDS


def test_completed_search_trials_and_baselines_are_kept() -> None:
    study = make_study(n=12)
    kept = EarlierStudy.of(study)
    expected = [
        item for item in study.of_kind(TrialKind.SEARCH, TrialKind.BASELINE) if item.state is TrialState.COMPLETE
    ]
    assert len(expected) == 9  # of 12, one failed, one was pruned, one runs, one waits; and a baseline
    assert [item.configuration for item in kept.trials] == [item.configuration for item in expected]
    assert [item.values for item in kept.trials] == [{"accuracy": item.value("accuracy")} for item in expected]
    assert [item.params for item in kept.trials] == [item.draft.params for item in expected]
    assert kept.objectives == (ACCURACY,)
    assert kept.describe() == "toy (toy on tiny, 9 trials)"


def test_every_measured_objective_is_kept() -> None:
    kept = EarlierStudy.of(make_study(objectives=(ACCURACY, PARAMETERS, SECONDS)))
    assert kept.objectives == (ACCURACY, SECONDS)
    assert {name for item in kept.trials for name in item.values} == {"accuracy", "wall_time_s"}


def test_other_fidelities_and_trials_without_quality_are_not() -> None:
    study = make_study()
    short = replace(
        study.trials[0], draft=replace(study.trials[0].draft, fidelity=Fidelity(train_examples=7, epochs=1))
    )
    blind = replace(study.trials[1], measurements=(replace(study.trials[1].measurements[0], metrics={}),))
    before, after = (
        EarlierStudy.of(item) for item in (study, replace(study, trials=(short, blind, *study.trials[2:])))
    )
    assert after.trials == before.trials[2:]


def test_it_survives_json() -> None:
    kept = EarlierStudy.of(make_study(n=20))
    document = kept.to_dict()
    assert EarlierStudy.from_dict(json.loads(json.dumps(document))) == kept
    assert len(json.dumps(document)) < 200 * len(kept.trials) + 1500


def test_a_long_study_is_thinned_out_but_keeps_its_front() -> None:
    study = make_study(n=150)
    kept = EarlierStudy.of(study)
    assert len(kept.trials) == MAX_TRIALS
    complete = [item for item in study.trials if item.state is TrialState.COMPLETE]
    complete = [item for item in complete if item.kind is not TrialKind.CONFIRMATION]
    rows = np.array([[item.value("accuracy"), -item.draft.trainable_parameters] for item in complete])
    front = {complete[i].configuration.fingerprint for i in np.flatnonzero(non_dominated_mask(rows))}
    assert front <= {item.configuration.fingerprint for item in kept.trials}


def test_a_study_without_trials_is_empty() -> None:
    assert EarlierStudy.of(replace(make_study(), trials=())).trials == ()


def test_quality_is_larger_when_better() -> None:
    kept = EarlierStudy.of(make_study(objectives=(SECONDS, PARAMETERS)))
    assert kept.quality().tolist() == [-item.values["wall_time_s"] for item in kept.trials]
