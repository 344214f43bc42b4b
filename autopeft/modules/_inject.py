"""Putting the modules of one or several configurations into a backbone, and taking them out again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from autopeft.configuration import Configuration, Placement, Site
from autopeft.exceptions import ConfigurationError
from autopeft.modules._backbone import TunableBackbone
from autopeft.modules._head import build_head
from autopeft.modules._hooks import Hooks
from autopeft.modules._kind import Member, ModuleKind, Place, check_spec
from autopeft.modules._layout import RowLayout
from autopeft.modules._listener import Listener, Moments
from autopeft.modules._registry import MODULES
from autopeft.modules._stack import OwnedParameter, Stack

_logger = logging.getLogger("autopeft.modules")


class Injection:
    """Modules of K candidates in one backbone; build with `inject`, use as a context manager or call `remove`.

    Rows of a batch are K blocks of equally many rows, one per active candidate, in the order of `select`.

    Args:
        backbone: The backbone.
        configurations: One per candidate.
        layout: Whose rows are where.
        stacks: Trained tensors of the modules.
        head: Trained tensors of the heads.
        hooks: What must be undone.
    """

    def __init__(
        self,
        backbone: TunableBackbone,
        configurations: Sequence[Configuration],
        *,
        layout: RowLayout,
        stacks: Sequence[Stack],
        head: Sequence[Stack],
        hooks: Hooks,
    ) -> None:
        self.configurations = tuple(configurations)
        self._layout = layout
        self._modules = tuple(stacks)
        self._stacks = (*stacks, *head)
        self._hooks = hooks
        self._offsets = tuple(uniform_prefix_length(item, backbone.shapes.n_layers) for item in configurations)
        #: Every trained tensor, heads included.
        self.parameters: list[OwnedParameter] = [item for stack in self._stacks for item in stack.parameters()]

    @property
    def active(self) -> tuple[int, ...]:
        """Candidates whose blocks the batches consist of, in this order."""
        return self._layout.active

    @property
    def lowest_layer(self) -> int | None:
        """Lowest layer that an active candidate tunes; None if they train heads alone."""
        layers = [self.configurations[candidate].lowest_layer for candidate in self.active]
        return min((layer for layer in layers if layer is not None), default=None)

    def select(self, active: Sequence[int]) -> None:
        """Declare whose blocks the coming batches consist of; everybody else's tensors are left alone.

        Raises:
            ConfigurationError: If `active` is empty, repeats a candidate or names one that does not exist.
        """
        chosen = tuple(active)
        if chosen == self._layout.active:
            return
        n = len(self.configurations)
        if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= candidate < n for candidate in chosen):
            raise ConfigurationError(
                f"active candidates must be distinct, at least one, and in [0, {n}), but got {list(chosen)}."
            )
        self._layout.active = chosen
        for stack in self._stacks:
            stack.select()
        self._hooks.select()

    def begin_batch(self, step: int, training: bool, first_row: int = 0) -> None:
        """Say what the next batch is; fixes every candidate's dropout masks.

        Args:
            step: Optimizer step, from 0.
            training: Whether dropout applies.
            first_row: Index of each block's first row within the candidate's whole batch, when that is cut into
                micro-batches.
        """
        self._layout.step = step
        self._layout.is_training = training
        self._layout.first_row = first_row
        self._layout.prefix_masks.clear()

    def begin_training(self, n_steps: int) -> None:
        """Say how many optimizer steps are to come; what they are too few for is logged as a warning."""
        for listener in self._hooks.listeners:
            listener.begin_training(n_steps)
        for text in sorted({text for listener in self._hooks.listeners for text in listener.shortfalls(n_steps)}):
            _logger.warning("%s", text)

    def penalties(self) -> Tensor | None:
        """What modules add to the active candidates' losses, of the last forward pass, shape (k,); None if nothing."""
        total: Tensor | None = None
        for listener in self._listening():
            penalty = listener.penalty()
            if penalty is not None:
                spread = listener.stack.spread(penalty)
                total = spread if total is None else total + spread
        return total

    def before_update(self, step: int, moments: Moments) -> None:
        """Let the modules see, and change, the gradients of a step before they are clipped."""
        for listener in self._listening():
            listener.before_update(step, moments)

    def after_update(self, step: int, moments: Moments) -> None:
        """Let the modules follow an update."""
        for listener in self._listening():
            listener.after_update(step, moments)

    def begin_statistics(self) -> None:
        """Start counting anew what `statistics` tells."""
        for listener in self._hooks.listeners:
            listener.begin_statistics()

    def statistics(self, candidate: int) -> dict[str, float]:
        """What a candidate's modules counted since `begin_statistics`, by ``"<site>.<type>.<name>"``."""
        return {
            f"{listener.stack.key}.{name}": value
            for listener in self._hooks.listeners
            if candidate in listener.stack.owners
            for name, value in listener.statistics(candidate).items()
        }

    def _listeners_of(self, candidate: int) -> list[Listener]:
        return [listener for listener in self._hooks.listeners if candidate in listener.stack.owners]

    def _listening(self) -> list[Listener]:
        """Those that an active candidate has."""
        return [listener for listener in self._hooks.listeners if listener.stack.n_active]

    def position_offset(self, candidate: int) -> int:
        """How far positions are shifted: the length of a uniform prefix on every layer when nothing else is trained.

        Such a configuration is peft's prefix tuning, where the prefix takes up positions; otherwise 0.
        """
        return self._offsets[candidate]

    def candidate_parameter_count(self, candidate: int) -> int:
        """Trained numbers of a candidate, counted from its tensors; the head excluded."""
        return sum(stack.count(candidate) for stack in self._modules)

    def state_dict(self, candidate: int) -> dict[str, Tensor]:
        """A candidate's trained values: unpadded float32 copies on the CPU, the head's under ``head.``."""
        return {name: value for stack in self._stacks for name, value in stack.state(candidate).items()}

    def trained_names(self, candidate: int) -> frozenset[str]:
        """Names in `state_dict` of what is trained, the head included; the others are buffers."""
        return frozenset(
            f"{stack.key}.{name}" for stack in self._stacks if candidate in stack.owners for name in stack.tensors
        )

    def load_state_dict(self, candidate: int, state: Mapping[str, Tensor]) -> None:
        """Set a candidate's values from `state_dict`.

        Raises:
            ConfigurationError: If a tensor is missing, superfluous or of another shape.
        """
        unknown = sorted(set(state) - set(self.state_dict(candidate)))
        if unknown:
            raise ConfigurationError(f"the state has tensors that candidate {candidate} does not: {unknown[:5]}.")
        for stack in self._stacks:
            stack.load(candidate, state)

    def parts(self, candidate: int) -> Iterator[tuple[str, Tensor, tuple[int | slice, ...]]]:
        """What a candidate has of the tensors and buffers of all, padding left out.

        Returns:
            Names as in `state_dict`, whole tensors, and the index of the candidate's part, a view that may be changed.
        """
        for stack in self._stacks:
            yield from stack.parts(candidate)

    def training_state(self, candidate: int) -> list[dict[str, Any]]:
        """What a candidate's modules remember from step to step beside their tensors and buffers.

        Returns:
            One mapping per module that takes part in training; values are tensors, numbers or None.
        """
        return [listener.training_state(candidate) for listener in self._listeners_of(candidate)]

    def load_training_state(self, candidate: int, states: Sequence[Mapping[str, Any]]) -> None:
        """Set what `training_state` tells, after `begin_training`."""
        for listener, state in zip(self._listeners_of(candidate), states, strict=True):
            listener.load_training_state(candidate, state)

    def remove(self) -> None:
        """Restore the backbone, bit for bit; a second call does nothing."""
        self._hooks.remove()

    def restore(self) -> None:
        """Put the same modules back after `remove`, with the values they have; does nothing if they are in."""
        if not self._hooks.is_installed:
            self._hooks.install()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def inject(
    backbone: TunableBackbone,
    configurations: Sequence[Configuration],
    *,
    seeds: Sequence[int],
    train_head: bool = True,
    module_types: Mapping[str, ModuleKind] = MODULES,
) -> Injection:
    """Put the modules of one or several configurations into a backbone.

    A candidate's initial values and dropout depend on its seed, the site and the type, never on its companions.

    Args:
        backbone: Frozen; used by one injection at a time.
        configurations: One per candidate.
        seeds: One per candidate.
        train_head: Whether each candidate gets a head of its own; else the backbone's is used as it is.
        module_types: Module types by name.

    Raises:
        ConfigurationError: If a configuration does not fit the backbone, or there is none.
    """
    if not configurations or len(seeds) != len(configurations):
        raise ConfigurationError(
            f"one seed per configuration is needed and at least one of each, but got {len(configurations)} "
            f"configurations and {len(seeds)} seeds."
        )
    layout = RowLayout(seeds, dtype=backbone.dtype, device=backbone.device)
    hooks = Hooks()
    stacks: list[Stack] = []
    by_place = _members(configurations, seeds)
    for (site, type_name), members in by_place.items():
        kind = _checked_kind(site, type_name, members, backbone, module_types)
        place = Place(
            site=site,
            key=f"{site_key(site)}.{type_name}",
            backbone=backbone,
            layout=layout,
            hooks=hooks,
            members=[(at, item) for (at, name), items in by_place.items() if name == type_name for item in items],
        )
        stacks += kind.build(place, members)
    head = build_head(backbone, layout, hooks, len(configurations)) if train_head else []
    # Only now does the backbone change: a configuration that does not fit leaves no trace.
    hooks.install()
    return Injection(backbone, configurations, layout=layout, stacks=stacks, head=head, hooks=hooks)


def site_key(site: Site) -> str:
    """A site's name in state dicts: ``"layers.3.q"``, or ``"embedding"``."""
    return site.part if site.layer is None else f"layers.{site.layer}.{site.part}"


def uniform_prefix_length(configuration: Configuration, n_layers: int) -> int:
    """Length of the prefix if the configuration is the same prefix on every layer and nothing else; 0 otherwise."""
    placements = configuration.placements
    specs = {item.module for item in placements}
    if len(placements) != n_layers or len(specs) != 1 or placements[0].module.type != "prefix":
        return 0
    return placements[0].module.size or 0


def virtual_tokens(configuration: Configuration, n_layers: int) -> int:
    """Positions that are taken before the text's: by a soft prompt, or by a prefix as `uniform_prefix_length` says."""
    prompts = [item.module.size or 0 for item in configuration.placements if item.module.type == "soft_prompt"]
    return sum(prompts) + uniform_prefix_length(configuration, n_layers)


def _members(configurations: Sequence[Configuration], seeds: Sequence[int]) -> dict[tuple[Site, str], list[Member]]:
    """Who has which module type where, bottom layer first."""
    items: list[tuple[Placement, Member]] = [
        (item, Member(candidate=candidate, spec=item.module, seed=seeds[candidate]))
        for candidate, configuration in enumerate(configurations)
        for item in configuration.placements
    ]
    items.sort(key=lambda pair: pair[0].sort_key)
    members: dict[tuple[Site, str], list[Member]] = {}
    for item, member in items:
        members.setdefault((item.site, item.module.type), []).append(member)
    return members


def _checked_kind(
    site: Site,
    type_name: str,
    members: Sequence[Member],
    backbone: TunableBackbone,
    module_types: Mapping[str, ModuleKind],
) -> ModuleKind:
    kind = module_types.get(type_name)
    if kind is None:
        raise ConfigurationError(f"unknown module type {type_name!r}. Known: {', '.join(sorted(module_types))}.")
    if site.part not in kind.parts:
        raise ConfigurationError(f"{type_name} cannot stand at {site.part}; it can at {', '.join(sorted(kind.parts))}.")
    n_layers = backbone.shapes.n_layers
    if site.layer is not None and site.layer >= n_layers:
        raise ConfigurationError(f"layer {site.layer} does not exist: the backbone has layers 0 to {n_layers - 1}.")
    for member in members:
        check_spec(kind, member.spec)
    return kind
