"""Acquisition functions for one uncertain quantity beside at most one exact cost, in closed form and in logs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_2PI_HALF = 0.5 * math.log(2 * math.pi)
_LOG_PI_2_HALF = 0.5 * math.log(math.pi / 2)
#: Below this, erfcx cancels to rounding error in float64 and the asymptotic series is exact to rounding.
_ASYMPTOTIC = -1e6


def log_h(u: Tensor) -> Tensor:
    """Logarithm of the standardised expected improvement, without underflow.

    h(u) = phi(u) + u Phi(u), so that E[(F - Y)+] = s h((F - mu) / s) for Y ~ N(mu, s^2). Far to the left
    h(u) ~ phi(u) / u^2, which underflows near u = -38; the logarithm stays exact (Ament et al., "Unexpected
    Improvements to Expected Improvement for Bayesian Optimization", arXiv 2310.20708).

    Args:
        u: Standardised margins, float64, any shape.

    Returns:
        log h(u), same shape.
    """
    right = u.clamp_min(-1.0)
    upper = torch.log(
        torch.exp(-0.5 * right.square() - _LOG_2PI_HALF) + right * 0.5 * torch.erfc(-right / math.sqrt(2))
    )
    left = u.clamp(_ASYMPTOTIC, -1.0)
    ratio = torch.log(torch.special.erfcx(-left / math.sqrt(2)) * left.abs()) + _LOG_PI_2_HALF  # log(1 - small)
    lower = -0.5 * left.square() - _LOG_2PI_HALF + torch.log(-torch.expm1(ratio))
    far = u.clamp_max(_ASYMPTOTIC)
    asymptotic = -0.5 * far.square() - _LOG_2PI_HALF - 2 * torch.log(far.abs())
    return torch.where(u > -1.0, upper, torch.where(u > _ASYMPTOTIC, lower, asymptotic))


def log_expected_improvement(mean: Tensor, standard_deviation: Tensor, best: float) -> Tensor:
    """Log expected improvement of a maximised quantity.

    log E[(Y - best)+] = log s + log h((mu - best) / s).

    Args:
        mean: Predicted means (n,).
        standard_deviation: Predicted standard deviations (n,), > 0.
        best: Value to improve on.

    Returns:
        Log improvement (n,); larger is better.
    """
    return standard_deviation.log() + log_h((mean - best) / standard_deviation)


def log_expected_hypervolume_improvement(
    mean: Tensor,
    standard_deviation: Tensor,
    cost: Tensor,
    *,
    front_values: Tensor,
    front_costs: Tensor,
    reference_value: float,
    reference_cost: float,
) -> Tensor:
    r"""Log expected hypervolume improvement with one uncertain maximised value and one exact minimised cost.

    Sorted by cost, the front cuts the cost axis into segments [lo_k, hi_k) with best value F_k so far (the reference
    value left of the first member, the reference cost at the right end). A candidate at cost c gains

        EHVI = sum_k max(0, hi_k - max(lo_k, c)) * s * h((mu - F_k) / s),    h(u) = phi(u) + u Phi(u),

    which is the integral over the cost axis of its expected improvement on the staircase. Exact, and in logs free of
    underflow. The general case is Yang et al., "Efficient computation of expected hypervolume improvement using box
    decomposition algorithms" (arXiv 1904.12672).

    Args:
        mean: Predicted means of the value (n,).
        standard_deviation: Predicted standard deviations (n,), > 0.
        cost: Exact costs (n,).
        front_values: Values of the points that count as reached (k,), k >= 0; dominated ones do no harm.
        front_costs: Their costs (k,).
        reference_value: Value below which nothing counts.
        reference_cost: Cost from which on nothing counts.

    Returns:
        Log improvement (n,); larger is better, -inf from the reference cost on.
    """
    order = torch.argsort(front_costs)
    edges = front_costs[order].clamp_max(reference_cost)
    low = torch.cat([edges.new_full((1,), -math.inf), edges])  # k + 1
    high = torch.cat([edges, edges.new_full((1,), reference_cost)])
    stairs = torch.cat([front_values.new_full((1,), reference_value), front_values[order]]).cummax(0).values
    width = (high - torch.maximum(low, cost.unsqueeze(-1))).clamp_min(0.0)  # n x (k + 1)
    spread = standard_deviation.unsqueeze(-1)
    gain = spread.log() + log_h((mean.unsqueeze(-1) - stairs) / spread)
    return torch.logsumexp(width.log() + gain, dim=-1)
