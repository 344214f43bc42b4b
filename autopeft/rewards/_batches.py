"""Plain forward passes over some of a candidate's texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from autopeft.training import Inputs, TrainedCandidate

_ROWS = 32


def forward_batches(
    candidate: TrainedCandidate, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[Inputs, Callable[[], Tensor]]]:
    """Batches of similar length, each with a function that passes it through the whole backbone as it is then.

    Args:
        candidate: Whose split and positions.
        rows: Examples of its split.

    Yields:
        The batch, and the function; it returns the logits.
    """
    resident = candidate.resident(candidate.data)
    ordered = rows[np.argsort(resident.lengths[rows], kind="stable")]
    for start in range(0, len(ordered), _ROWS):
        chosen = ordered[start : start + _ROWS]
        inputs = resident.inputs(chosen, int(resident.lengths[chosen].max()))

        def run(inputs: Inputs = inputs) -> Tensor:
            return candidate.backbone.forward(
                inputs.input_ids,
                inputs.attention_mask,
                inputs.token_type_ids,
                candidate.position_ids(inputs.attention_mask),
            )

        yield inputs, run
