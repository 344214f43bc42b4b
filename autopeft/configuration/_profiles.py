"""How a module's size changes over the depth of the backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Smallest weight of a profile relative to its largest, as in MoLA's two to eight experts per layer (arXiv 2402.08562).
_LOWEST: Final = 0.25


def _rising(x: float) -> float:
    return _LOWEST + (1 - _LOWEST) * x


#: Relative size at depth x: 0 is the lowest tuned layer, 1 the highest. Append only: the names are stored.
PROFILES: Final[dict[str, Callable[[float], float]]] = {
    "flat": lambda _: 1.0,
    "increasing": _rising,
    "decreasing": lambda x: _rising(1 - x),
    "triangle": lambda x: _rising(1 - abs(2 * x - 1)),
    "hourglass": lambda x: _rising(abs(2 * x - 1)),
}


def profile_sizes(profile: str, size: int, n_layers: int) -> tuple[int, ...]:
    """Spread a mean size over layers.

    ``size_l = max(1, round(size * w_l / mean(w)))`` with ``w_l`` the profile at depth ``l / (n_layers - 1)``. The mean
    is kept, up to rounding, so that changing the profile does not change the cost.

    Args:
        profile: Key of `PROFILES`.
        size: Mean size over the layers, >= 1.
        n_layers: How many layers the module stands in, >= 1.

    Returns:
        One size >= 1 per layer, lowest layer first.
    """
    shape = PROFILES[profile]
    # Equal weights for a single layer: every profile is the same configuration there.
    weights = [shape(index / (n_layers - 1)) for index in range(n_layers)] if n_layers > 1 else [1.0]
    mean = sum(weights) / n_layers
    return tuple(max(1, int(size * weight / mean + 0.5)) for weight in weights)
