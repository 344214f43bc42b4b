"""What earlier studies say about a search; oracles: their own fronts, and cold searches of the same problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autopeft.objectives import Direction, Objective
from autopeft.samplers import EarlierStudy, make_sampler
from autopeft.samplers._candidates import CandidateSource
from autopeft.samplers._goal import fit_default
from autopeft.samplers._knowledge import Knowledge, transfer_weights
from autopeft.samplers._points import PointSource
from autopeft.samplers._transfer import TransferSurrogate
from autopeft.study import Trial
from tests.samplers.earlier import Related, draw_points, searched
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, SECONDS, make_trial, run, small_space

SPACE = small_space()
OLD_POINTS = draw_points(SPACE, 40, seed=5)
NEW = Related(SPACE, 0, 0)


def source(*, is_reversed: bool = False, n: int = 40) -> EarlierStudy:
    return searched(Related(SPACE, 0, 1), "source", OLD_POINTS[:n], is_reversed=is_reversed)


def knowledge(*studies: EarlierStudy, measured: tuple[Objective, ...] = (ACCURACY,)) -> Knowledge:
    return Knowledge(studies, PointSource(SPACE), measured, seed=0)


def sampler(*studies: EarlierStudy, objectives: tuple[Objective, ...] = (ACCURACY, PARAMETERS), seed: int = 0):
    return make_sampler("bayesian", space=SPACE, objectives=objectives, seed=seed, fidelity=FIDELITY, earlier=studies)


def test_seeds_are_members_of_the_earlier_front() -> None:
    found = knowledge(source())
    rows = [(item.values["accuracy"], -item.trainable_parameters) for item in source().trials]
    front = {
        item.configuration.fingerprint
        for item, row in zip(source().trials, rows, strict=True)
        if not any(other[0] >= row[0] and other[1] >= row[1] and other != row for other in rows)
    }
    taken: set[str] = set()
    seeds = []
    while (seed := found.seed(taken)) is not None:
        seeds.append(seed)
        taken.add(seed[0].fingerprint)
    assert 3 <= len(seeds) <= 4
    assert {point.fingerprint for point, _ in seeds} <= front
    assert {name for _, name in seeds} == {"source"}


def test_an_earlier_configuration_of_another_space_becomes_the_nearest_point_here() -> None:
    """Without its params a configuration is looked for; the space can say it exactly, so it is found."""
    study = source()
    foreign = replace(study, trials=tuple(replace(item, params=None) for item in study.trials))
    exact, expressed = knowledge(study).seed(()), knowledge(foreign).seed(())
    assert exact is not None
    assert expressed is not None
    assert expressed[0].configuration == exact[0].configuration


def test_where_candidates_are_all_there_is_seeds_are_candidates() -> None:
    candidates = draw_points(SPACE, 50, seed=9)
    points = CandidateSource(SPACE, candidates=candidates)
    found = Knowledge([source()], points, (ACCURACY,), seed=0).seed(())
    assert found is not None
    assert found[0].fingerprint in {SPACE.compile(item).fingerprint for item in candidates}


def test_a_study_that_says_too_little_here_is_no_source() -> None:
    assert not knowledge(source(n=5)).has_sources
    assert not knowledge().has_sources
    assert not knowledge(source(), measured=()).has_sources
    assert knowledge().fits(fit_default) == []
    assert knowledge().seed(()) is None


def test_quality_is_matched_by_position_and_other_objectives_by_name() -> None:
    """Another task calls its quality otherwise; what only this search measures starts from nothing."""
    matthews = Objective(name="matthews", direction=Direction.MAXIMIZE)
    models = knowledge(source(), measured=(matthews, SECONDS))._source_models()
    assert [len(item) for item in models] == [1, 0]


def test_a_quality_that_is_minimised_teaches_the_same() -> None:
    study = source()
    error = Objective(name="error", direction=Direction.MINIMIZE)
    flipped = replace(
        study,
        objectives=(error,),
        trials=tuple(replace(item, values={"error": -item.values["accuracy"]}) for item in study.trials),
    )
    x = np.random.default_rng(0).random((5, knowledge(study)._encoder.encode([]).shape[1]))
    [[left]], [[right]] = knowledge(study)._source_models(), knowledge(flipped)._source_models()
    np.testing.assert_allclose(left.predict(x)[0], right.predict(x)[0])


def test_a_search_begins_with_what_was_good_and_says_so() -> None:
    trials = run(sampler(source()), NEW, 3)
    first = knowledge(source()).seed(())
    assert first is not None
    assert trials[0].configuration == first[0].configuration
    second = knowledge(source()).seed({first[0].fingerprint})
    assert second is not None
    assert trials[1].configuration == second[0].configuration
    assert sampler(source()).ask([], 1)[0].notes["why"] == "good in the earlier study source"
    cold = run(sampler(), NEW, 1)
    assert trials[2].configuration == cold[0].configuration  # the design's own first point comes third


def test_a_restarted_search_goes_on_the_same() -> None:
    trials = run(sampler(source()), NEW, 12)
    for n in (0, 3, 4, 7, 11):
        assert sampler(source()).ask(trials[:n], 1)[0].params == trials[n].draft.params


def test_asking_for_more_does_not_change_the_first() -> None:
    trials = run(sampler(source()), NEW, 6)
    for n in (0, 2, 5, 6):
        assert sampler(source()).ask(trials[:n], 4)[0] == sampler(source()).ask(trials[:n], 1)[0]


def test_the_notes_say_how_far_each_study_is_believed() -> None:
    trials = random_trials(8)
    notes = sampler(source()).ask(trials, 1)[0].notes
    assert notes["source"] == "model"
    assert set(notes["earlier_studies"]) == {"accuracy"}
    assert 0 < notes["earlier_studies"]["accuracy"]["source"] <= 1


def random_trials(n: int) -> list[Trial]:
    points = draw_points(SPACE, n, seed=77)
    return [
        make_trial(i, SPACE.compile(item), SPACE, params=item, values=NEW.measure(SPACE.compile(item)))
        for i, item in enumerate(points)
    ]


def test_a_reversed_study_is_not_believed_and_the_search_goes_on_as_without_it() -> None:
    """From the same trials on, the proposal is the cold search's own, to the last parameter."""
    trials = random_trials(12)
    warm, cold = sampler(source(is_reversed=True)).ask(trials, 1)[0], sampler().ask(trials, 1)[0]
    assert warm.params == cold.params
    assert "earlier_studies" not in warm.notes


def test_with_two_measured_objectives_joint_samples_are_shifted_too() -> None:
    trials = random_trials(10)
    found = sampler(source(), objectives=(ACCURACY, SECONDS, PARAMETERS)).ask(trials, 2)
    assert len({SPACE.compile(item.params).fingerprint for item in found}) == 2
    assert set(found[0].notes["earlier_studies"]) == {"accuracy"}


def test_other_samplers_ignore_earlier_studies() -> None:
    for name in ("random", "tpe", "nsga2"):
        made = [
            make_sampler(name, space=SPACE, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY, earlier=given)
            for given in ((), (source(),))
        ]
        assert made[0].ask([], 2) == made[1].ask([], 2)


def test_transfer_weights_leave_out_what_leans_on_nothing() -> None:
    trials = random_trials(8)
    x = knowledge(source())._encoder.encode(trials_as_points(trials))
    own = fit_default(x, np.array([item.value("accuracy") for item in trials]), np.zeros(8))
    assert transfer_weights([ACCURACY], [own]) == {}
    [fit] = knowledge(source()).fits(fit_default)
    shifted = fit(x, np.array([item.value("accuracy") for item in trials]), np.zeros(8))
    assert isinstance(shifted, TransferSurrogate)
    assert list(transfer_weights([ACCURACY], [shifted])["accuracy"]) == ["source"]


def trials_as_points(trials: list[Trial]) -> list:
    points = PointSource(SPACE)
    return [points.make(item.draft.params) for item in trials]


def test_a_reversed_study_costs_its_points_but_none_of_the_designs() -> None:
    """The design's eight points come all the same: the three of the earlier study are on top."""
    trials = run(sampler(source(is_reversed=True)), NEW, 11)
    cold = run(sampler(), NEW, 2)
    design = [item.configuration.fingerprint for i, item in enumerate(trials) if i not in (0, 1, 3)]
    assert design[:2] == [item.configuration.fingerprint for item in cold[:2]]  # made by hand, without draws
    again = sampler(source(is_reversed=True))
    sources = [again.ask(trials[:n], 1)[0].notes["source"] for n in (0, 4, 8, 10)]
    assert sources == ["initial"] * 4
