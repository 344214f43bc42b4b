"""The learning rate over the steps of a run."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, n_steps: int, warmup_share: float) -> float:
    r"""Factor on the peak learning rate at a step: linear warm-up, then linear decay.

    .. math::
        f(s) = \min\left(\frac{s}{w}, \frac{n - s}{n - w}\right), \quad w = \lceil n \cdot \text{share} \rceil

    This is the rule of `transformers.get_linear_schedule_with_warmup`.

    Args:
        step: Zero-based optimizer step, in [0, n_steps).
        n_steps: Steps of the whole run, >= 1.
        warmup_share: Share of them spent on the rise, in [0, 1).

    Returns:
        A number in [0, 1].
    """
    warmup = math.ceil(n_steps * warmup_share)
    if step < warmup:
        return step / warmup
    return (n_steps - step) / max(1, n_steps - warmup)
