"""What proposes the next configuration: functions of the trials. Only `bayesian` needs torch, when it is made."""

from autopeft.samplers._base import Sampler, Source, Suggestion
from autopeft.samplers._optuna import optuna_distribution
from autopeft.samplers._registry import SAMPLERS, SamplerFactory, make_sampler

__all__ = ["SAMPLERS", "Sampler", "SamplerFactory", "Source", "Suggestion", "make_sampler", "optuna_distribution"]
