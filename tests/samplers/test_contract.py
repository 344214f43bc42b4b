"""The samplers' contract, over every sampler there is."""

import pytest

from autopeft.samplers import SAMPLERS
from tests.samplers.contract import SamplerContract


@pytest.mark.parametrize("name", sorted(SAMPLERS))
class TestSamplers(SamplerContract):
    pass
