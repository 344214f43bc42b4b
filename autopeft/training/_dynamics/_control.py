"""The dynamics of a cohort: asks each candidate's, and tells the optimizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from autopeft.modules import MODULES, Injection, OwnedParameter, RankedKind, site_key
from autopeft.training._dynamics import DYNAMICS, Dynamics, TrainedModule
from autopeft.training._freezing_optimizer import FreezingAdamW

#: Losses of some candidates on the step's batch, as they are now, without gradients.
Measure = Callable[[Sequence[int]], Sequence[float]]


class CohortDynamics:
    """Carries out the dynamics of those candidates that have one; the others are updated at every step.

    Args:
        injection: The candidates' modules.
        optimizer: Of their tensors.
        seeds: One per candidate.
        n_steps: Steps of the training.
    """

    def __init__(self, injection: Injection, optimizer: FreezingAdamW, *, seeds: Sequence[int], n_steps: int) -> None:
        self._parameters = injection.parameters
        self._optimizer = optimizer
        sizes = [item.tensor[0].numel() for item in self._parameters for _ in item.candidates]
        device = self._parameters[0].tensor.device
        #: Whether single numbers are frozen, in the optimizer's order.
        self._frozen_values = torch.zeros(sum(sizes), dtype=torch.bool, device=device)
        starts = [end - size for end, size in zip(itertools.accumulate(sizes), sizes, strict=True)]
        self._dynamics: dict[int, Dynamics] = {}
        for candidate, configuration in enumerate(injection.configurations):
            spec = configuration.dynamics
            if spec is not None:
                kind = DYNAMICS[spec.type]
                modules = self._modules(injection, candidate, starts, with_initial=kind.keeps_initial)
                self._dynamics[candidate] = kind(spec, modules, seed=seeds[candidate], n_steps=n_steps)
        self._begun: int | None = None
        self._applied: object = None

    def begin_step(self, step: int, active: Sequence[int], measure: Measure) -> None:
        """Settle what a step updates; the same step again changes nothing."""
        moving = [candidate for candidate in active if candidate in self._dynamics]
        if step != self._begun:
            self._try_out(step, moving, measure)
            self._begun = step
        frozen = {candidate: self._dynamics[candidate].frozen(step) for candidate in moving}
        wanted = (tuple(active), frozen, [self._dynamics[candidate].revision for candidate in moving])
        if wanted != self._applied:
            self._apply(active, frozen)
            self._applied = wanted

    def before_update(self, step: int, active: Sequence[int]) -> None:
        """Say that the gradients of a step are complete."""
        for candidate in active:
            if candidate in self._dynamics:
                self._dynamics[candidate].before_update(step)

    def after_update(self, step: int, active: Sequence[int]) -> None:
        """Say that a step is done."""
        for candidate in active:
            if candidate in self._dynamics:
                self._dynamics[candidate].after_update(step)

    def state(self, candidate: int) -> dict[str, Any]:
        """What a candidate's dynamics carries from step to step."""
        found = self._dynamics.get(candidate)
        return {} if found is None else found.state()

    def load_state(self, candidate: int, state: Mapping[str, Any]) -> None:
        """Carry on from what `state` told."""
        if candidate in self._dynamics:
            self._dynamics[candidate].load_state(state)

    def statistics(self, candidate: int) -> dict[str, float]:
        """What a candidate's dynamics records, by ``"dynamics.<name>"``."""
        found = self._dynamics.get(candidate)
        return {} if found is None else {f"dynamics.{name}": value for name, value in found.statistics().items()}

    def _try_out(self, step: int, moving: Sequence[int], measure: Measure) -> None:
        """Measure what the dynamics want to know before a step, of all candidates at once."""
        wanted = {candidate: self._dynamics[candidate].trials(step) for candidate in moving}
        losses: dict[int, list[float]] = {candidate: [] for candidate in moving}
        for index in range(max(map(len, wanted.values()), default=0)):
            asking = [candidate for candidate in moving if index < len(wanted[candidate])]
            with self._suppressed({candidate: wanted[candidate][index] for candidate in asking}):
                for candidate, loss in zip(asking, measure(asking), strict=True):
                    losses[candidate].append(loss)
        for candidate in moving:
            self._dynamics[candidate].learn(step, losses[candidate])

    @contextmanager
    def _suppressed(self, keys: dict[int, frozenset[str]]) -> Iterator[None]:
        """Take what some modules have learned away, for a while."""
        items = [
            (item.values[name], item.initial[name])
            for candidate, chosen in keys.items()
            for item in self._dynamics[candidate].modules
            if item.key in chosen
            for name in item.values
        ]
        learned = [value.clone() for value, _ in items]
        try:
            for value, initial in items:
                value.copy_(initial)
            yield
        finally:
            for (value, _), kept in zip(items, learned, strict=True):
                value.copy_(kept)

    def _apply(self, active: Sequence[int], frozen: dict[int, frozenset[str]]) -> None:
        rows = {
            row
            for candidate, keys in frozen.items()
            for item in self._dynamics[candidate].modules
            if item.key in keys
            for row in item.rows
        }
        first = 0
        for parameter in self._parameters:
            owners = parameter.candidates
            # A tensor that learns for nobody needs no gradient: nothing below the lowest one that does is computed.
            is_live = any(owner in active and first + i not in rows for i, owner in enumerate(owners))
            parameter.tensor.requires_grad_(is_live)
            first += len(owners)
        self._optimizer.freeze(sorted(rows), self._frozen_values)

    def _modules(
        self, injection: Injection, candidate: int, starts: Sequence[int], *, with_initial: bool
    ) -> list[TrainedModule]:
        """A candidate's modules in the order of its configuration."""
        rows: dict[str, dict[str, int]] = {}
        tensors: dict[int, tuple[OwnedParameter, int]] = {}
        row = 0
        for parameter in self._parameters:
            for position, owner in enumerate(parameter.candidates):
                if owner == candidate:
                    key, name = split_name(parameter.name)
                    rows.setdefault(key, {})[name] = row
                    tensors[row] = parameter, position
                row += 1
        counts = {name: value.numel() for name, value in injection.state_dict(candidate).items()}

        def views(names: dict[str, int], flat: Tensor | None) -> dict[str, Tensor]:
            """Values of the tensors, or the piece of a flat buffer that belongs to each."""
            found = {}
            for name, index in names.items():
                parameter, position = tensors[index]
                value = parameter.tensor.detach()[position]
                piece = None if flat is None else flat[starts[index] : starts[index] + value.numel()]
                found[name] = value if piece is None else piece.view(value.shape)
            return found

        modules = []
        for item in injection.configurations[candidate].placements:
            key, kind = f"{site_key(item.site)}.{item.module.type}", MODULES[item.module.type]
            names = rows.get(key, {})
            values = views(names, None)
            modules.append(
                TrainedModule(
                    key=key,
                    layer=item.site.layer,
                    part=item.site.part,
                    size=item.module.size,
                    is_identity=kind.is_identity,
                    ranked=kind.ranked & names.keys() if isinstance(kind, RankedKind) else frozenset(),
                    n_values=sum(counts[f"{key}.{name}"] for name in names),
                    rows=tuple(names.values()),
                    values=values,
                    gradients=views(names, self._optimizer.gradients),
                    initial={name: value.clone() for name, value in values.items()} if with_initial else {},
                    frozen=views(names, self._frozen_values) if with_initial else {},
                )
            )
        return modules


def split_name(name: str) -> tuple[str, str]:
    """A trained tensor's site and type, and its own name there."""
    plain, _, _ = name.partition("[")
    parts = plain.split(".")
    n_key = 4 if parts[0] == "layers" else 2
    return ".".join(parts[:n_key]), ".".join(parts[n_key:])
