"""Oracle: asking one at a time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.samplers import Sampler, make_sampler
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, Problem, default_space, run, tiny_space


def random_sampler(space: object, seed: int) -> Sampler:
    return make_sampler("random", space=space, objectives=(ACCURACY, PARAMETERS), seed=seed, fidelity=FIDELITY)


def test_the_seed_alone_decides_and_seeds_differ() -> None:
    space = default_space()
    assert random_sampler(space, 0).ask([], 3) == random_sampler(space, 0).ask([], 3)
    assert random_sampler(space, 0).ask([], 3) != random_sampler(space, 1).ask([], 3)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), batch=st.integers(2, 5), n=st.integers(1, 9))
def test_how_many_are_asked_for_at_once_does_not_matter(seed: int, batch: int, n: int) -> None:
    """So that searches with many workers try the configurations of a serial one."""
    space = default_space()
    problem = Problem(space=space, seed=0)
    alone = run(random_sampler(space, seed), problem, n, seed=seed)
    together = run(random_sampler(space, seed), problem, n, batch=batch, seed=seed)
    assert [trial.draft for trial in alone] == [trial.draft for trial in together]


def test_an_exhausted_space_gives_what_is_left() -> None:
    space = tiny_space()
    every = random_sampler(space, 0).ask([], 1000)
    fingerprints = [space.compile(item.params).fingerprint for item in every]
    assert len(every) == len(set(fingerprints)) < 28
