"""A candidate as it is deployed: merged into the backbone's weights, as far as that is exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autopeft.configuration import Configuration, Placement
from autopeft.modules import inject, merge_obstacle, merged_state, site_key
from autopeft.rewards._examples import subset
from autopeft.training import ResidentSplit, TrainedCandidate

#: Examples by which merging is checked.
_EXAMPLES = 8
#: Rounding that merging may add, relative to the largest output.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a deployed candidate consists of.

    Args:
        merged_share: Of its modules, how many were written into the weights, in [0, 1]; 1 for a head alone.
        added_bytes: Size of the trained tensors that stay beside the weights.
    """

    merged_share: float
    added_bytes: int


@contextmanager
def deployed(candidate: TrainedCandidate) -> Iterator[Deployment]:
    """Within the block, the backbone computes what the candidate computes, with as few modules beside it as possible.

    Modules that are linear in the weights are merged, in the backbone's dtype; the others stay. Where both meet such
    that merging would change the outputs, all stay.
    """
    merged, rest = split_by_merge(candidate)
    if merged.placements and rest.placements and not _is_exact(candidate, merged, rest):
        merged, rest = _part(candidate.configuration, []), candidate.configuration
    with _with(candidate, merged, rest) as found:
        yield found


def split_by_merge(candidate: TrainedCandidate) -> tuple[Configuration, Configuration]:
    """The modules of a configuration that can be merged, and those that cannot."""
    whole, shapes = candidate.configuration, candidate.backbone.shapes
    alone = {item: _part(whole, [item]) for item in whole.placements}
    can = [item for item in whole.placements if merge_obstacle(alone[item], shapes) is None]
    return _part(whole, can), _part(whole, [item for item in whole.placements if item not in can])


def _part(configuration: Configuration, placements: list[Placement]) -> Configuration:
    return Configuration(placements=tuple(placements), learning_rate=configuration.learning_rate)


@contextmanager
def _with(candidate: TrainedCandidate, merged: Configuration, rest: Configuration) -> Iterator[Deployment]:
    backbone, state = candidate.backbone, candidate.state()
    own = {name: value for name, value in state.items() if _belongs(name, rest)}
    n_modules = len(candidate.configuration.placements)
    with ExitStack() as stack:
        weights = merged_state(backbone, merged, {name: value for name, value in state.items() if name not in own})
        stack.enter_context(_weights(candidate, weights))
        if rest.placements:
            injection = stack.enter_context(inject(backbone, [rest], seeds=[candidate.seed], train_head=False))
            injection.load_state_dict(0, own)
            injection.begin_batch(0, training=False)
        yield Deployment(
            merged_share=len(merged.placements) / n_modules if n_modules else 1.0,
            added_bytes=sum(value.numel() * value.element_size() for value in own.values()),
        )


def _belongs(name: str, configuration: Configuration) -> bool:
    return any(name.startswith(f"{site_key(item.site)}.{item.module.type}.") for item in configuration.placements)


@contextmanager
def _weights(candidate: TrainedCandidate, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, parameters of the model have other values; the tensors themselves come back after it."""
    model = candidate.backbone.model
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        for name, value in values.items():
            parameter = model.get_parameter(name)
            saved.append((parameter, parameter.data))
            parameter.data = value.to(parameter.device, parameter.dtype)
        yield
    finally:
        for parameter, data in reversed(saved):
            parameter.data = data


def _is_exact(candidate: TrainedCandidate, merged: Configuration, rest: Configuration) -> bool:
    """Whether the backbone with some modules merged gives the candidate's outputs on a few examples, to rounding."""
    rows = np.arange(min(_EXAMPLES, len(candidate.data.texts)))
    few = subset(candidate.data, rows)
    expected = torch.from_numpy(candidate.outputs(few)).float()
    with _with(candidate, merged, rest):
        found = plain_outputs(candidate, candidate.resident(few), rows).cpu()
    tolerance = _TOLERANCE.get(candidate.backbone.dtype, 0.1)
    return float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


@torch.inference_mode()
def plain_outputs(candidate: TrainedCandidate, resident: ResidentSplit, rows: npt.NDArray[np.int64]) -> Tensor:
    """What the backbone computes now for some examples.

    Args:
        candidate: Whose positions count.
        resident: The examples.
        rows: Which of them.

    Returns:
        Float32, shape (rows, labels).
    """
    inputs = resident.inputs(rows, int(resident.lengths[rows].max()))
    outputs = candidate.backbone.forward(
        inputs.input_ids, inputs.attention_mask, inputs.token_type_ids, candidate.position_ids(inputs.attention_mask)
    )
    return outputs.float()
