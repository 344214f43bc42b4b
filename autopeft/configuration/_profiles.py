"""How a module's size changes over the depth of the backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

#: Relative size of layer i of 0..n: from 1 to 4, as MoLA's two to eight experts (arXiv 2402.08562), in units of 1 / n.
#: Whole numbers, because mirrored layers must get the same size. Append only: the names are stored.
PROFILES: Final[dict[str, Callable[[int, int], int]]] = {
    "flat": lambda _, n: n,
    "increasing": lambda i, n: n + 3 * i,
    "decreasing": lambda i, n: n + 3 * (n - i),
    "triangle": lambda i, n: n + 3 * (n - abs(2 * i - n)),
    "hourglass": lambda i, n: n + 3 * abs(2 * i - n),
}


@lru_cache(maxsize=4096)
def profile_sizes(profile: str, size: int, n_layers: int) -> tuple[int, ...]:
    """Spread a mean size over layers.

    ``size_l = max(1, round(size * w_l / mean(w)))`` with ``w_l`` the profile at layer l, halves rounded up. The mean is
    kept, up to rounding, so that changing the profile does not change the cost.

    Args:
        profile: Key of `PROFILES`.
        size: Mean size over the layers, >= 1.
        n_layers: How many layers the module stands in, >= 1.

    Returns:
        One size >= 1 per layer, lowest layer first.
    """
    weight, last = PROFILES[profile], n_layers - 1
    # Equal weights for a single layer: every profile is the same configuration there.
    weights = [weight(index, last) for index in range(n_layers)] if last else [1]
    total = sum(weights)
    return tuple(max(1, (2 * size * n_layers * item + total) // (2 * total)) for item in weights)
