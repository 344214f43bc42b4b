"""Domain values to stored text and bytes, and back, without loss. Both stores use it and so keep the same promises."""

from __future__ import annotations

import json
import math
import numbers
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from autopeft.configuration import Configuration, DynamicsSpec, ModuleSpec, OptionValue, Site
from autopeft.configuration._configuration import Placement
from autopeft.store._json_text import shared_pairs
from autopeft.store._readable import check_study_name
from autopeft.study import CurvePoint, Measurement, StudySpec, Trial, TrialDraft, TrialState


def to_json(value: Any, subject: str) -> str:
    """JSON text of a JSON-ready value; NumPy scalars count as numbers.

    Raises:
        ValueError: If it is not JSON-ready, or a number is not finite.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_plain_number)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{subject} must be JSON-ready with finite numbers, but: {error}.") from error


def _plain_number(value: Any) -> Any:
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON-ready: {value!r:.100}")


def encode_spec(spec: StudySpec) -> str:
    """A study's spec as JSON text: every study that is made passes here.

    Raises:
        UsageError: If its name is not Unicode. One that an older version has stored can still be looked at.
    """
    check_study_name(spec.name)
    return to_json(spec.to_dict(), f"the settings of study {spec.name!r}")


def decode_spec(text: str) -> StudySpec:
    """Inverse of `encode_spec`."""
    return StudySpec.from_dict(json.loads(text))


def encode_configuration(configuration: Configuration) -> str:
    """A configuration as JSON text."""
    return to_json(configuration.to_dict(), "the configuration")


@lru_cache(maxsize=4096)
def decode_configuration(text: str) -> Configuration:
    """Inverse of `encode_configuration`; configurations are immutable, so one may serve many readers."""
    data = json.loads(text)
    placements = tuple(
        _placement(item["layer"], item["part"], item["type"], item["size"], *_hashable(item["options"]))
        for item in data["modules"]
    )
    dynamics = DynamicsSpec.from_dict(data["dynamics"]) if "dynamics" in data else None
    return Configuration(placements=placements, learning_rate=data["learning_rate"], dynamics=dynamics)


def _hashable(options: dict[str, OptionValue]) -> tuple[tuple[tuple[str, OptionValue], ...], tuple[type, ...]]:
    if not options:
        return (), ()
    # True == 1 == 1.0 as a cache key, but they are different options: the types join the key.
    items = tuple(sorted(options.items()))
    return items, tuple(type(value) for _, value in items)


@lru_cache(maxsize=4096)
def _placement(
    layer: int | None,
    part: str,
    type: str,
    size: int | None,
    options: tuple[tuple[str, OptionValue], ...],
    _option_types: tuple[type, ...],
) -> Placement:
    return Placement(site=Site(layer=layer, part=part), module=ModuleSpec(type=type, size=size, options=options))


def check_point(point: CurvePoint) -> None:
    """Refuse a curve point with a negative step or a number that is not finite.

    Raises:
        ValueError: Names the number.
    """
    if point.step < 0:
        raise ValueError(f"`step >= 0` must hold for a curve point, but got {point.step}.")
    for name, value in [("epoch", point.epoch), ("wall_time_s", point.wall_time_s), *point.metrics.items()]:
        if not math.isfinite(value):
            raise ValueError(
                f"{name} of the curve point at step {point.step} must be finite, but got {value}; "
                "leave out what was not measured."
            )


def encode_curve(curve: Sequence[CurvePoint]) -> str:
    """A learning curve as JSON text: [[step, epoch, wall_time_s, metrics], ...], n_examples behind if it is known."""
    for point in curve:
        check_point(point)
    rows = [
        [point.step, point.epoch, point.wall_time_s, dict(point.metrics)]
        + ([] if point.n_examples is None else [point.n_examples])
        for point in curve
    ]
    return to_json(rows, "the learning curve")


def decode_curve(text: str) -> tuple[CurvePoint, ...]:
    """Inverse of `encode_curve`."""
    return tuple(
        CurvePoint(
            step=step, epoch=epoch, wall_time_s=wall_time_s, metrics=metrics, n_examples=rest[0] if rest else None
        )
        for step, epoch, wall_time_s, metrics, *rest in json.loads(text, object_pairs_hook=shared_pairs)
    )


def encode_predictions(predictions: Sequence[float] | None) -> bytes | None:
    """Predictions as one letter for the kind of number and the compressed little-endian numbers.

    Class indices take one or two bytes each before compression, everything else eight: float64, bit for bit.
    """
    if predictions is None:
        return None
    kind = "d"
    # A negative zero equals 0 but is no class index: copysign tells them apart.
    if all(
        value == value and value >= 0 and value == value // 1 and math.copysign(1, value) > 0 for value in predictions
    ):
        largest = max(predictions, default=0)
        kind = "B" if largest < 1 << 8 else "H" if largest < 1 << 16 else "d"
    values = array(kind, predictions if kind == "d" else [int(value) for value in predictions])
    if sys.byteorder == "big":
        values.byteswap()
    return kind.encode() + zlib.compress(values.tobytes())


def _is_class_index(value: float) -> bool:
    # A negative zero equals 0 but is no class index: copysign tells them apart.
    return 0 <= value < 1 << 16 and value == int(value) and math.copysign(1.0, value) > 0


def decode_predictions(data: bytes | None) -> tuple[float, ...] | None:
    """Inverse of `encode_predictions`."""
    if data is None:
        return None
    values: array[Any] = array(data[:1].decode())
    values.frombytes(zlib.decompress(data[1:]))
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(map(float, values))


def check_completion(
    state: TrialState, measurements: Sequence[Measurement], earlier: Sequence[Measurement] = ()
) -> None:
    """Refuse what cannot be the end of a trial that has some measurements from when it was pruned.

    Raises:
        ValueError: If the state is not COMPLETE or PRUNED, a COMPLETE trial has no measurement or one at a rung, a
            PRUNED trial one that is at no rung, or two measurements have the same split, fidelity, seed and rung.
    """
    if state not in (TrialState.COMPLETE, TrialState.PRUNED):
        raise ValueError(f"a trial completes as COMPLETE or PRUNED, but got {state}; use fail_trial for a failure.")
    if state is TrialState.COMPLETE and not measurements:
        raise ValueError("a COMPLETE trial has at least one measurement, but got none.")
    for item in measurements:
        if (item.rung is None) != (state is TrialState.COMPLETE):
            where = "at its end" if item.rung is None else f"at step {item.rung.step} of {item.rung.n_steps}"
            raise ValueError(
                f"a COMPLETE trial is measured at its end and a PRUNED one at a rung, but got one {where}."
            )
    keys = [(item.split, item.fidelity, item.seed, item.rung and item.rung.step) for item in (*earlier, *measurements)]
    if len(set(keys)) < len(keys):
        raise ValueError(f"measurements must differ in split, fidelity or seed, or in their rung, but got {keys}.")


def normalized_measurement(measurement: Measurement) -> Measurement:
    """The measurement as any store would give it back."""
    return replace(
        measurement,
        metrics=_through_json(dict(measurement.metrics), "metrics"),
        costs=_through_json(dict(measurement.costs), "costs"),
        environment=_through_json(dict(measurement.environment), "environment"),
        curve=decode_curve(encode_curve(measurement.curve)),
        predictions=decode_predictions(encode_predictions(measurement.predictions)),
    )


def normalized_draft(draft: TrialDraft) -> TrialDraft:
    """The draft as any store would give it back."""
    return replace(
        draft,
        configuration=decode_configuration(encode_configuration(draft.configuration)),
        params=None if draft.params is None else _through_json(dict(draft.params), "params"),
    )


def _through_json(value: Any, subject: str) -> Any:
    return json.loads(to_json(value, subject))


def copy_trial(trial: Trial) -> Trial:
    """A copy that shares nothing mutable with the trial."""
    return replace(
        trial,
        draft=replace(trial.draft, params=_copy(trial.draft.params)),
        measurements=tuple(
            replace(
                item,
                metrics=_copy(item.metrics),
                costs=_copy(item.costs),
                environment=_copy(item.environment),
                curve=tuple(replace(point, metrics=_copy(point.metrics)) for point in item.curve),
            )
            for item in trial.measurements
        ),
        curve=tuple(replace(point, metrics=_copy(point.metrics)) for point in trial.curve),
        notes=_copy(trial.notes),
    )


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
