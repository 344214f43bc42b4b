"""The samplers' contract, over every sampler there is."""

import pytest

from autopeft.samplers import SAMPLERS
from tests.samplers.contract import SamplerContract


# A chain of `saas` takes seconds per proposal; it is `bayesian` with another fit.
@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"saas"}))
class TestSamplers(SamplerContract):
    pass
