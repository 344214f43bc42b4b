"""AdamW for a cohort of which parts rest at some steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autopeft.training._optimizer import BETAS, EPS, FlatAdamW, clip_scales


class FreezingAdamW(FlatAdamW):
    """`FlatAdamW` in which rows of tensors, or single numbers, can be left alone for a while.

    What is frozen keeps its values and moments, and its gradient does not count in its candidate's norm. A row's
    moments are corrected for the number of its own updates, as `torch.optim.AdamW` does for a tensor whose gradient is
    None at times. The arguments are those of `FlatAdamW`.
    """

    def _prepare(self, owners: Sequence[int], sizes: Sequence[int], factors: Sequence[float]) -> None:
        self._fused = None
        self._prepare_cohort(owners, sizes)
        self._owners = tuple(owners)
        self._frozen_rows: frozenset[int] = frozenset()
        #: Where single numbers are frozen; None where none are.
        self._frozen_values: Tensor | None = None
        decays = [item.tensor.dim() > 2 for item in self._parameters for _ in item.candidates]
        self._rows: list[torch.nn.Parameter] = []
        self._row_gradients = self.gradients.split(list(sizes))
        groups: dict[tuple[int, float, bool], list[torch.nn.Parameter]] = {}
        for row, values in enumerate(self._values.split(list(sizes))):
            self._rows.append(torch.nn.Parameter(values))
            groups.setdefault((owners[row], factors[row], decays[row]), []).append(self._rows[row])
        self._group_rates = [self._host_rates[owner] * factor for owner, factor, _ in groups]
        self._adam = torch.optim.AdamW(
            [
                {"params": rows, "weight_decay": self._weight_decay if decay else 0.0}
                for (_, _, decay), rows in groups.items()
            ],
            betas=BETAS,
            eps=EPS,
            fused=True,
        )
        # The moments live in the flat buffers, where `moments` finds them.
        moments = zip(self._first.split(list(sizes)), self._second.split(list(sizes)), strict=True)
        for parameter, (first, second) in zip(self._rows, moments, strict=True):
            n_updates = torch.zeros((), dtype=torch.float32, device=first.device)
            self._adam.state[parameter] = {"step": n_updates, "exp_avg": first, "exp_avg_sq": second}

    def freeze(self, rows: Sequence[int], values: Tensor) -> None:
        """Say what the coming steps leave alone.

        Args:
            rows: Leading rows of the tensors, counted over all of them in their order.
            values: Whether single numbers are frozen, in the order of the tensors (n,).
        """
        self._frozen_rows = frozenset(rows)
        found = values.nonzero()[:, 0]
        self._frozen_values = found if len(found) else None

    def row_updates(self, candidate: int) -> list[int]:
        return [int(self._adam.state[self._rows[row]]["step"]) for row in self._rows_of(candidate)]

    def set_row_updates(self, candidate: int, counts: Sequence[int]) -> None:
        for row, count in zip(self._rows_of(candidate), counts, strict=True):
            self._adam.state[self._rows[row]]["step"].fill_(float(count))

    def _rows_of(self, candidate: int) -> list[int]:
        return [row for row, owner in enumerate(self._owners) if owner == candidate]

    def gradient_norms(self) -> Tensor:
        for row in self._frozen_rows:
            self._row_gradients[row].zero_()
        if self._frozen_values is not None:
            self.gradients[self._frozen_values] = 0.0
        return super().gradient_norms()

    def _update(self, factor: float, norms: Tensor, active: Sequence[int] | None) -> None:
        if self._max_grad_norm is not None:
            scales = clip_scales(norms, self._max_grad_norm)
            self.gradients.mul_(scales if len(scales) == 1 else scales[self._owner])
        moving = set(self._owners) if active is None else set(active)
        for row, parameter in enumerate(self._rows):
            is_live = row not in self._frozen_rows and self._owners[row] in moving
            parameter.grad = self._row_gradients[row] if is_live else None
        for group, rate in zip(self._adam.param_groups, self._group_rates, strict=True):
            group["lr"] = rate * factor
        resting = self._frozen_values
        if resting is None:
            self._adam.step()
            return
        buffers = (self._values, self._first, self._second)
        kept = [buffer[resting] for buffer in buffers]
        self._adam.step()
        for buffer, values in zip(buffers, kept, strict=True):
            buffer[resting] = values
