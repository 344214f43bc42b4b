"""A cohort's forward pass: K blocks of rows over one frozen backbone, from the lowest tuned layer up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from autopeft.backbones import Backbone
from autopeft.exceptions import DivergenceError
from autopeft.modules import Injection
from autopeft.training._batches import Batch, Rows, evaluation_batches
from autopeft.training._first_token import reads_first_token
from autopeft.training._hidden_states import StoredStates
from autopeft.training._inputs import ResidentSplit
from autopeft.training._target_scale import TargetScale


class CohortForward:
    """Computes logits and losses of the active candidates.

    Args:
        backbone: The backbone, with the cohort's modules injected.
        injection: The modules.
        first_layer: Lowest tuned layer over the cohort; the number of layers if only heads are trained.
        states: What enters that layer, by split name; splits that are absent start from the token ids.
    """

    def __init__(
        self, backbone: Backbone, injection: Injection, *, first_layer: int, states: Mapping[str, StoredStates]
    ) -> None:
        self._backbone = backbone
        self._injection = injection
        self._first_layer = first_layer
        self._states = states
        self._head_reads_first_token = reads_first_token(backbone)

    def logits(self, split: ResidentSplit, rows: npt.NDArray[np.int64], length: int, active: Sequence[int]) -> Tensor:
        """Forward pass.

        Args:
            split: The examples.
            rows: Example of each row, candidate after candidate in the order of `active`.
            length: Tokens to pad to.
            active: The candidates.

        Returns:
            Float32 logits, shape (rows, labels).
        """
        inputs = split.inputs(rows, length)
        stored = self._states.get(split.name)
        if stored is None:
            hidden, first_layer = None, 0
        else:
            if self._first_layer == self._backbone.shapes.n_layers and self._head_reads_first_token:
                inputs = inputs.first_token()
            hidden, first_layer = stored.gather(inputs.token_index), self._first_layer
        logits = self._backbone.forward(
            inputs.input_ids,
            inputs.attention_mask,
            inputs.token_type_ids,
            self._position_ids(inputs.attention_mask, active),
            hidden_states=hidden,
            first_layer=first_layer,
        )
        return logits.float()

    def losses(
        self,
        split: ResidentSplit,
        batches: Sequence[Batch],
        n_examples: int,
        active: Sequence[int],
        scale: TargetScale | None,
    ) -> Tensor:
        """Each candidate's loss on its (micro-)batch: the sum over rows divided by the whole batch's examples.

        Args:
            split: The examples.
            batches: One per active candidate, all of one shape.
            n_examples: Examples in the whole batch.
            active: The candidates.
            scale: For regression, the unit of the squared error; None is classification by cross entropy.

        Returns:
            Shape (k,).
        """
        rows = np.concatenate([batch.rows for batch in batches])
        logits = self.logits(split, rows, batches[0].length, active)
        targets = split.targets(rows)
        if scale is None:
            each = F.cross_entropy(logits, targets, reduction="none")
        else:
            each = F.mse_loss(logits[:, 0], scale.standardize(targets), reduction="none")
        return each.view(len(active), -1).sum(1) / n_examples

    def predict(self, split: ResidentSplit, active: Sequence[int], max_tokens: int, rows: Rows | None = None) -> Tensor:
        """Outputs for every example of a split, or for some.

        Args:
            split: The examples.
            active: The candidates.
            max_tokens: Padded tokens per batch, over all candidates.
            rows: The examples wanted; None for all.

        Returns:
            Float32 logits on the CPU, shape (k, n, labels), n the examples wanted; not finite where a candidate has
            diverged.
        """
        wanted = np.arange(len(split)) if rows is None else rows
        batches = evaluation_batches(split.lengths, wanted, max(1, max_tokens // len(active)))
        logits = self.predict_batches(split, batches, active)
        return logits if rows is None else logits[:, torch.from_numpy(rows)]

    @torch.inference_mode()
    def predict_batches(self, split: ResidentSplit, batches: Sequence[Batch], active: Sequence[int]) -> Tensor:
        """Outputs for the examples of some batches, zero elsewhere; as `predict`."""
        k = len(active)
        result = torch.zeros(k, len(split), self._backbone.n_labels)
        for batch in batches:
            self._injection.begin_batch(0, training=False)
            logits = self.logits(split, np.tile(batch.rows, k), batch.length, active)
            result[:, torch.from_numpy(batch.rows)] = logits.view(k, len(batch.rows), -1).cpu()
        return result

    def _position_ids(self, attention_mask: Tensor, active: Sequence[int]) -> Tensor | None:
        """Positions shifted by a candidate's uniform prefix, as peft's prefix tuning shifts them; None if none is."""
        offsets = [self._injection.position_offset(candidate) for candidate in active]
        if not any(offsets):
            return None
        blocks = attention_mask.chunk(len(active))
        return torch.cat(
            [self._backbone.position_ids(block, offset) for block, offset in zip(blocks, offsets, strict=True)]
        )


def to_predictions(logits: Tensor, scale: TargetScale | None) -> npt.NDArray[np.float64]:
    """Class indices, or natural values for regression.

    Args:
        logits: One candidate's outputs on the CPU, shape (n, labels).
        scale: For regression, the unit of the outputs; None is classification.

    Raises:
        DivergenceError: If an output is not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise DivergenceError("the trained model's outputs are not finite.")
    values = logits.argmax(dim=1) if scale is None else scale.naturalize(logits[:, 0].double())
    return values.numpy().astype(np.float64)
