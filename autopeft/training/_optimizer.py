"""AdamW over one flat buffer, with a learning rate and a gradient norm of its own for every candidate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from autopeft.modules import ADAM_BETAS

BETAS = ADAM_BETAS
EPS = 1e-8


class OwnedTensor(Protocol):
    """A trained tensor whose leading axis runs over candidates; `autopeft.modules.OwnedParameter` is one."""

    @property
    def name(self) -> str: ...

    @property
    def tensor(self) -> Tensor:
        """Float32 leaf, shape (k, ...)."""

    @property
    def candidates(self) -> tuple[int, ...]:
        """Owner of each leading row."""

    @property
    def rate_factors(self) -> tuple[float, ...]:
        """On the learning rate of each leading row."""


class FlatAdamW:
    r"""AdamW in which every candidate is updated as if it were alone.

    All trained tensors become views into one flat buffer, and their gradients views into another, so that a step is a
    few operations however many tensors there are. For candidate k with gradient g_k, peak learning rate l_k and
    schedule factor f:

    .. math::
        \hat g_k = g_k \min(1, c / \lVert g_k \rVert), \quad
        \theta_k \leftarrow (1 - f l_k \lambda)\,\theta_k
            - f l_k\, \frac{\hat m_k}{\sqrt{\hat v_k} + \epsilon}

    With one candidate this is `torch.optim.AdamW` (fused) and `torch.nn.utils.clip_grad_norm_` (AdamW: arXiv
    1711.05101). A tensor's ``rate_factors`` multiply its owners' learning rates (LoRA+, arXiv 2402.12354).

    Args:
        parameters: The trained tensors; their storage moves into the flat buffer.
        learning_rates: Peak learning rate of each candidate.
        weight_decay: Lambda; tensors with a single value per feature (biases, scales, norms) are spared.
        max_grad_norm: c; None never clips.
    """

    def __init__(
        self,
        parameters: Sequence[OwnedTensor],
        learning_rates: Sequence[float],
        *,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        device = parameters[0].tensor.device
        self._parameters = tuple(parameters)
        self._rates = torch.tensor(learning_rates, dtype=torch.float32, device=device)
        self._host_rates = tuple(learning_rates)
        self._weight_decay = weight_decay
        self._max_grad_norm = max_grad_norm
        self._step = 0
        self._values, self.gradients = _flatten([item.tensor for item in parameters])
        owners = [owner for item in parameters for owner in item.candidates]
        sizes = [item.tensor[0].numel() for item in parameters for _ in item.candidates]
        factors = [factor for item in parameters for factor in item.rate_factors]
        self._starts = _starts([item.tensor for item in parameters])
        self._prepare(owners, sizes, factors)
        decays = torch.tensor([float(item.tensor.dim() > 2) for item in parameters for _ in item.candidates])
        self._decays = torch.repeat_interleave(decays, torch.tensor(sizes)).to(device) if weight_decay else None

    def _prepare(self, owners: Sequence[int], sizes: Sequence[int], factors: Sequence[float]) -> None:
        """Set up the update.

        Args:
            owners: Candidate of each row of the tensors' leading axes.
            sizes: Numbers in each.
            factors: On its learning rate.
        """
        device = self._values.device
        is_uniform = all(factor == 1 for factor in factors)
        self._fused: torch.optim.AdamW | None = None
        if len(self._host_rates) == 1 and is_uniform:
            flat = torch.nn.Parameter(self._values)
            flat.grad = self.gradients
            self._fused = torch.optim.AdamW(
                [flat], lr=self._host_rates[0], betas=BETAS, eps=EPS, weight_decay=0.0, fused=True
            )
            return
        self._prepare_cohort(owners, sizes)
        self._factors = (
            None if is_uniform else torch.repeat_interleave(torch.tensor(factors), torch.tensor(sizes)).to(device)
        )

    def _prepare_cohort(self, owners: Sequence[int], sizes: Sequence[int]) -> None:
        """Make moments, and whose each row and number is."""
        device = self._values.device
        self._first = torch.zeros_like(self._values)
        self._second = torch.zeros_like(self._values)
        # Row r of the tensors' leading axes belongs to candidate owners[r]; shape (k, rows).
        one_hot = torch.nn.functional.one_hot(torch.tensor(owners), len(self._host_rates))
        self._membership = one_hot.T.bool().to(device)
        self._owner = torch.repeat_interleave(torch.tensor(owners), torch.tensor(sizes)).to(device)

    @property
    def n_values(self) -> int:
        """Trained numbers, padding included."""
        return self._values.numel()

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place: the views stay."""
        self.gradients.zero_()

    def moments(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """First and second moment of a trained tensor, views of its shape; zero before the first step."""
        if self._fused is None:
            first, second = self._first, self._second
        else:
            state = self._fused.state.get(self._fused.param_groups[0]["params"][0], {})
            if not state:
                return torch.zeros_like(tensor), torch.zeros_like(tensor)
            first, second = state["exp_avg"], state["exp_avg_sq"]
        start = self._starts[id(tensor)]
        stop = start + tensor.numel()
        return first[start:stop].view(tensor.shape), second[start:stop].view(tensor.shape)

    def begin_at(self, n_updates: int) -> None:
        """Go on as after so many updates; the moments are to be filled in (`moments`).

        Args:
            n_updates: Updates that every candidate has had, >= 1.
        """
        self._step = n_updates
        if self._fused is not None:
            (flat,) = self._fused.param_groups[0]["params"]
            self._fused.state[flat] = {
                "step": torch.tensor(float(n_updates), dtype=torch.float32, device=flat.device),
                "exp_avg": torch.zeros_like(self._values),
                "exp_avg_sq": torch.zeros_like(self._values),
            }

    def row_updates(self, candidate: int) -> list[int]:
        """Updates of each of a candidate's rows, in the order of the tensors; empty where all are the run's steps."""
        return []

    def set_row_updates(self, candidate: int, counts: Sequence[int]) -> None:
        """Set what `row_updates` tells."""

    def gradient_norms(self) -> Tensor:
        """Euclidean norm of each candidate's gradient, shape (k,)."""
        if self._fused is not None:
            return torch.linalg.vector_norm(self.gradients).reshape(1)
        rows = [
            torch.linalg.vector_norm(item.tensor.grad.flatten(1), dim=1)
            for item in self._parameters
            if item.tensor.grad is not None
        ]
        # Not a matrix product: there, one candidate's infinity times 0 would be NaN for all the others.
        return torch.where(self._membership, torch.cat(rows).square(), 0.0).sum(1).sqrt()

    @torch.no_grad()
    def step(self, factor: float, active: Sequence[int] | None = None) -> Tensor:
        """Clip and update.

        Args:
            factor: Of the schedule, on every peak learning rate, in [0, 1].
            active: Candidates to update; the others keep their values. None means all.

        Returns:
            Gradient norms before clipping, shape (k,).
        """
        norms = self.gradient_norms()
        self._step += 1
        self._update(factor, norms, active)
        return norms

    def _update(self, factor: float, norms: Tensor, active: Sequence[int] | None) -> None:
        if self._fused is not None:
            self._fused_step(self._fused, factor, norms)
        else:
            self._cohort_step(factor, norms, active)

    def _fused_step(self, fused: torch.optim.AdamW, factor: float, norms: Tensor) -> None:
        if self._max_grad_norm is not None:
            self.gradients.mul_(clip_scales(norms, self._max_grad_norm))
        rate = self._host_rates[0] * factor
        if self._decays is not None:
            self._values.mul_(1 - rate * self._weight_decay * self._decays)
        fused.param_groups[0]["lr"] = rate
        fused.step()

    def _cohort_step(self, factor: float, norms: Tensor, active: Sequence[int] | None) -> None:
        gradients = self.gradients
        if self._max_grad_norm is not None:
            gradients.mul_(clip_scales(norms, self._max_grad_norm)[self._owner])
        rates = self._rates * factor
        if active is not None and len(active) < len(rates):
            mask = torch.zeros_like(rates)
            mask[torch.tensor(list(active), device=rates.device)] = 1.0
            rates = rates * mask
        rate = rates[self._owner]
        if self._factors is not None:
            rate = rate * self._factors
        if self._decays is not None:
            self._values.mul_(1 - rate * self._weight_decay * self._decays)
        self._first.lerp_(gradients, 1 - BETAS[0])
        self._second.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        correction = 1 - BETAS[0] ** self._step
        denominator = (self._second.sqrt() / (1 - BETAS[1] ** self._step) ** 0.5).add_(EPS)
        update = self._first / denominator
        # A dropped candidate that diverged has non-finite moments, and 0 * NaN would still be NaN.
        self._values.sub_(torch.where(rate > 0, update * rate / correction, 0.0))


def clip_scales(norms: Tensor, limit: float) -> Tensor:
    return (limit / (norms + 1e-6)).clamp(max=1.0)


def _starts(tensors: Sequence[Tensor]) -> dict[int, int]:
    """Where each tensor begins in the flat buffer, by identity."""
    ends = list(itertools.accumulate(tensor.numel() for tensor in tensors))
    return {id(tensor): end - tensor.numel() for tensor, end in zip(tensors, ends, strict=True)}


def _flatten(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Move tensors into one buffer and give each a gradient that is a view into another."""
    total = sum(tensor.numel() for tensor in tensors)
    values = torch.empty(total, dtype=torch.float32, device=tensors[0].device)
    gradients = torch.zeros_like(values)
    start = 0
    for tensor in tensors:
        stop = start + tensor.numel()
        view = values[start:stop].view(tensor.shape)
        view.copy_(tensor.detach())
        tensor.data = view
        tensor.grad = gradients[start:stop].view(tensor.shape)
        start = stop
    return values, gradients
