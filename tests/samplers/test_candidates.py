import numpy as np
import pytest

from autopeft.exceptions import UsageError
from autopeft.objectives import Constraint
from autopeft.samplers import SAMPLERS, make_sampler
from autopeft.samplers._candidates import CandidateSource, point_source
from autopeft.samplers._design import Design
from autopeft.samplers._local_search import maximize
from autopeft.samplers._points import PointSource
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, Problem, run, small_space

SPACE = small_space()


def listed(n: int, seed: int = 0) -> list[dict]:
    points = PointSource(SPACE).fresh(np.random.default_rng(seed), n, ())
    return [dict(point.params) for point in points]


def identities(candidates: list[dict]) -> set[str]:
    return {SPACE.compile(params).fingerprint for params in candidates}


# A chain of `saas` takes seconds per proposal.
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "saas")) for name in SAMPLERS])
def test_every_sampler_evaluates_each_candidate_once_and_nothing_else(name: str) -> None:
    # Eight are the design's; the model chooses among the others.
    candidates = listed(12)
    sampler = make_sampler(
        name, space=SPACE, objectives=(ACCURACY, PARAMETERS), seed=3, fidelity=FIDELITY, candidates=candidates
    )
    trials = run(sampler, Problem(SPACE, seed=0), 30, batch=2, seed=3)
    assert len(trials) == 12
    assert {item.configuration.fingerprint for item in trials} == identities(candidates)
    assert sampler.ask(trials, 1) == []


def test_the_best_of_all_candidates_is_found_whatever_their_number() -> None:
    """Oracle: the largest score by brute force, over more candidates than a pool of draws holds."""
    source = CandidateSource(SPACE, candidates=listed(400))
    values = {fingerprint: value for value, fingerprint in enumerate(sorted(identities(listed(400))))}
    taken: set[str] = set()
    for wanted in sorted(values, key=values.__getitem__, reverse=True)[:5]:
        found = maximize(
            lambda items: np.array([float(values[item.fingerprint]) for item in items]),
            source,
            incumbents=[],
            rng=np.random.default_rng(0),
            taken=taken,
        )
        assert found is not None
        assert found.fingerprint == wanted
        taken.add(found.fingerprint)


def test_draws_are_uniform_over_what_is_left() -> None:
    """Oracle: the chi-squared statistic of 4,000 draws of one of 8 stays below its 99.9 % quantile."""
    candidates = listed(10)
    source = CandidateSource(SPACE, candidates=candidates)
    taken = {SPACE.compile(params).fingerprint for params in candidates[:2]}
    rng = np.random.default_rng(0)
    counts: dict[str, int] = {}
    for _ in range(4000):
        (point,) = source.draw(rng, 1, taken)
        counts[point.fingerprint] = counts.get(point.fingerprint, 0) + 1
    assert set(counts) == identities(candidates[2:])
    assert sum((n - 500) ** 2 / 500 for n in counts.values()) < 24.3


def test_making_a_point_finds_the_candidate_with_its_configuration() -> None:
    candidates = listed(5)
    source = CandidateSource(SPACE, candidates=candidates)
    found = source.make(candidates[3])
    assert found is not None
    assert found.params == candidates[3]
    other = next(params for params in listed(50, seed=9) if not identities([params]) & identities(candidates))
    assert source.make(other) is None


def test_the_design_begins_with_candidates_although_none_is_hand_made() -> None:
    candidates = listed(12)
    design = Design(CandidateSource(SPACE, candidates=candidates), seed=0)
    taken: list[str] = []
    for index in range(12):
        point = design.propose(index, np.random.default_rng(index), taken)
        assert point is not None
        taken.append(point.fingerprint)
    assert len(set(taken)) == 12
    assert set(taken) == identities(candidates)
    assert design.propose(12, np.random.default_rng(0), taken) is None


def test_constraints_hold_for_candidates_too() -> None:
    candidates = listed(20)
    counts = [SPACE.parameter_count(SPACE.compile(params)) for params in candidates]
    limit = Constraint(name="trainable_parameters", upper=float(sorted(counts)[9]))
    source = point_source(SPACE, [limit], candidates)
    assert len(source.fresh(np.random.default_rng(0), 100, ())) == 10
    assert all(point.trainable_parameters <= limit.upper for point in source.count_out(np.random.default_rng(0)))
    with pytest.raises(UsageError, match="none of the 20 candidates is feasible"):
        point_source(SPACE, [Constraint(name="trainable_parameters", upper=1.0)], candidates)
