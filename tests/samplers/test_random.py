from autopeft.samplers import make_sampler
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, default_space


def test_the_seed_alone_decides_and_seeds_differ() -> None:
    space = default_space()

    def first(seed: int) -> object:
        sampler = make_sampler("random", space=space, objectives=(ACCURACY, PARAMETERS), seed=seed, fidelity=FIDELITY)
        return sampler.ask([], 3)

    assert first(0) == first(0)
    assert first(0) != first(1)
