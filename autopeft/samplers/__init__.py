"""What proposes the next configuration: functions of the trials. Only `bayesian` needs torch, when it is made."""

from autopeft.samplers._base import Sampler
from autopeft.samplers._registry import SAMPLERS, SamplerFactory, make_sampler

__all__ = ["SAMPLERS", "Sampler", "SamplerFactory", "make_sampler"]
