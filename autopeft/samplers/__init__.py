"""What proposes the next configuration: functions of the trials. Only `bayesian` and `saas` need torch, when made."""

from autopeft.samplers._base import Sampler, Source, Suggestion
from autopeft.samplers._contradiction import contradiction
from autopeft.samplers._earlier import EarlierStudy, EarlierTrial
from autopeft.samplers._optuna import optuna_distribution
from autopeft.samplers._registry import SAMPLERS, WARM_SAMPLERS, SamplerFactory, make_sampler, require_sampler
from autopeft.samplers._translate import MIN_EARLIER_TRIALS, bring_here

__all__ = [
    "MIN_EARLIER_TRIALS",
    "SAMPLERS",
    "WARM_SAMPLERS",
    "EarlierStudy",
    "EarlierTrial",
    "Sampler",
    "SamplerFactory",
    "Source",
    "Suggestion",
    "bring_here",
    "contradiction",
    "make_sampler",
    "optuna_distribution",
    "require_sampler",
]
