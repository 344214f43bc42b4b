"""What a user asks of a search; every command-line flag and configuration-file key has its twin here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from autopeft.exceptions import UnknownNameError, UsageError

#: Where trials can run.
EXECUTORS = ("local", "workers", "ray")
#: Settings that say where trials run, not what they are.
EXECUTION = ("executor", "address", "workers", "worker_cpus", "worker_gpus", "memory_limit_bytes", "trial_timeout_s")


_LEAST_MEMORY_BYTES = 2**20
#: What to do where limits of a trial are not the search's to set.
_WAYS_OUT = {
    "local": ", which trains in this very process. --executor ray without --address keeps workers on this machine, "
    "whose trials can be ended alone.",
    "workers": ", whose workers are started elsewhere: give {names} to each `autopeft worker`.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Settings of one search.

    Args:
        task: Registered task name, or the path of a CSV, TSV, JSON-lines or Parquet file.
        budget: Cap on trainable PEFT parameters, as ``"1%"`` of the backbone or an absolute ``"300k"``.
        backbone: Registered backbone, local folder, or hub id.
        space: Registered search space or the path of a YAML file.
        sampler: Key of `autopeft.samplers.SAMPLERS`.
        objectives: Names of what is optimised: metrics, costs, rewards, or functions of the user's as
            ``package.module:function`` or ``file.py:function``; empty means the space's own, or else the task's first
            metric and ``trainable_parameters``.
        constraints: Bounds that the front must keep, as `autopeft.objectives.Constraint.parse` reads them.
        record: Rewards that are measured and stored beside the objectives, named alike.
        reward_options: Options of built-in rewards, by the reward's name and the option's.
        trials: Search trials the study should have in the end, baselines and confirmations not counted, >= 1.
        time_s: No new search trial is started after this many seconds; None for no limit.
        seeds: Seeds per confirmed configuration, >= 1.
        confirm_top: Front members retrained and scored on the report split; 0 skips the confirmation.
        baselines: Whether the baselines are run.
        seed: Seed of the study.
        study: Name of the study; None derives one from the settings that define it.
        warm_start: Earlier studies to learn from: ``"auto"`` for the database's, ``"none"``, a study's name, or a file
            that `autopeft db export` wrote. Of a study that has begun, ``"auto"`` is whatever it was begun with.
        data_dir: Folder with the task's files in their official layout; None uses the hub.
        text_columns: One or two text columns of the user's file.
        label_column: Label column of the user's file.
        kind: ``"classification"`` or ``"regression"``; None infers it from the labels.
        train_fraction: Share of the training data used, in (0, 1].
        train_examples: Training examples per trial; None takes the task's default.
        epochs: Passes over them; None takes the task's default.
        fidelity: ``"auto"`` stops search trials early that cannot reach the front, ``"full"`` trains all of them to
            their end, ``"low"`` and a share such as ``"25%"`` train them on fewer examples; confirmations are always
            full.
        pruner: Key of `autopeft.pruners.PRUNERS`; None decides it by the fidelity.
        batch_size: Examples per optimizer step, >= 1.
        max_tokens: Texts are truncated to this many tokens, >= 8.
        precision: Of the frozen weights: ``"auto"``, ``"bfloat16"`` or ``"float32"``.
        device: Torch device, or ``"auto"``.
        cohort: Configurations trained as one batch; None lets the hardware decide.
        allow_pickle: Load weights that are not safetensors.
        trust_remote_code: Run code that comes with the backbone.
        revision: Revision of a hub backbone.
        executor: Where trials run: ``"local"`` in this process, ``"workers"`` in every `autopeft worker` that reaches
            the database, ``"ray"`` in workers on a Ray cluster. No part of what defines the study, like all below.
        address: Ray cluster: ``"auto"`` or ``"ray://host:port"``; None starts one on this machine.
        workers: Most workers on the Ray cluster, >= 1; None as many as its resources allow.
        worker_cpus: Cores of each of them, > 0.
        worker_gpus: GPUs of each of them, >= 0; a fraction shares one. None takes one where there are GPUs.
        memory_limit_bytes: A trial on one of them fails when it holds more memory than this, >= 1 MiB; None for no
            limit.
        trial_timeout_s: A trial on one of them fails when it gives no sign for so long, > 0; None for an hour. Signs
            are the start, points of the curve, and the end: it must be more than an epoch takes.
    """

    task: str
    budget: str = "1%"
    backbone: str = "minilm"
    space: str = "default"
    sampler: str = "bayesian"
    objectives: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    record: tuple[str, ...] = ()
    reward_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trials: int = 16
    time_s: float | None = None
    seeds: int = 3
    confirm_top: int = 5
    baselines: bool = True
    seed: int = 0
    study: str | None = None
    warm_start: str = "auto"
    data_dir: Path | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    kind: str | None = None
    train_fraction: float = 1.0
    train_examples: int | None = None
    epochs: int | None = None
    fidelity: str = "full"
    pruner: str | None = None
    batch_size: int = 16
    max_tokens: int = 128
    precision: str = "auto"
    device: str = "auto"
    cohort: int | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    revision: str | None = None
    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    worker_cpus: float = 1.0
    worker_gpus: float | None = None
    memory_limit_bytes: int | None = None
    trial_timeout_s: float | None = None

    def __post_init__(self) -> None:
        lows = {"trials": 1, "seeds": 1, "confirm_top": 0, "batch_size": 1, "max_tokens": 8, "seed": 0}
        lows |= {
            name: 1 for name in ("epochs", "train_examples", "cohort", "workers") if getattr(self, name) is not None
        }
        for name, low in lows.items():
            if getattr(self, name) < low:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {low}, but got {getattr(self, name)}.")
        if not 0 < self.train_fraction <= 1:
            raise UsageError(f"--train-fraction must lie in (0 %, 100 %], but got {self.train_fraction:.4g}.")
        if self.time_s is not None and not self.time_s > 0:
            raise UsageError(f"--time must be positive, but got {self.time_s:g} seconds.")
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise UnknownNameError("precision", self.precision, ("auto", "bfloat16", "float32"))
        if self.executor not in EXECUTORS:
            raise UnknownNameError("executor", self.executor, EXECUTORS)
        if not self.worker_cpus > 0:
            raise UsageError(f"--worker-cpus must be positive, but got {self.worker_cpus:g}.")
        if self.worker_gpus is not None and not self.worker_gpus >= 0:
            raise UsageError(f"--worker-gpus must be at least 0, but got {self.worker_gpus:g}.")
        if self.executor != "ray" and (self.address is not None or self.workers is not None):
            raise UsageError(f"--address and --workers go with --executor ray, but the executor is {self.executor}.")
        self._check_limits()
        if self.kind not in (None, "classification", "regression"):
            raise UnknownNameError("kind", str(self.kind), ("classification", "regression"))

    def _check_limits(self) -> None:
        limits = {"--memory-limit": self.memory_limit_bytes, "--trial-timeout": self.trial_timeout_s}
        given = [flag for flag, value in limits.items() if value is not None]
        if given and self.executor != "ray":
            names = " and ".join(given)
            raise UsageError(
                f"{names} {'goes' if len(given) == 1 else 'go'} with --executor ray, but the executor is "
                f"{self.executor}{_WAYS_OUT[self.executor].format(names=names)}"
            )
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < _LEAST_MEMORY_BYTES:
            raise UsageError(f"--memory-limit must be at least 1M, but got {self.memory_limit_bytes} bytes.")
        if self.trial_timeout_s is not None and not self.trial_timeout_s > 0:
            raise UsageError(f"--trial-timeout must be positive, but got {self.trial_timeout_s:g} seconds.")

    @classmethod
    def make(cls, base: Mapping[str, Any], overrides: Mapping[str, Any]) -> SearchSettings:
        """Combine a configuration file with flags; flags win where they are given (not None).

        Args:
            base: Content of the file, keys as the fields here, dashes allowed.
            overrides: Values of the flags, None where a flag was not given.

        Raises:
            UsageError: If a key is unknown, a value has the wrong type, or no task is named.
        """
        known = {item.name for item in fields(cls)}
        given = {setting_name(str(key)): value for key, value in base.items() if value is not None}
        for key in given:
            if key not in known:
                raise UnknownNameError("setting", key, known)
        given |= {key: value for key, value in overrides.items() if value is not None}
        if not given.get("task"):
            raise UsageError("no task given; pass --task, for example --task stdlib/topics (see `autopeft tasks`).")
        return cls(**{key: _convert(key, value) for key, value in given.items()})

    def with_changes(self, **changes: Any) -> SearchSettings:
        """A copy with some fields changed, validated again."""
        return replace(self, **changes)


def setting_name(key: str) -> str:
    """The field that a configuration file's key stands for, which may be spelled like the flag."""
    name = key.replace("-", "_")
    return _FLAG_NAMES.get(name, name)


#: Flags whose field has another name; a configuration file may use either.
_FLAG_NAMES = {
    "time": "time_s",
    "memory_limit": "memory_limit_bytes",
    "trial_timeout": "trial_timeout_s",
    "objective": "objectives",
    "constraint": "constraints",
    "text_column": "text_columns",
    "reward_option": "reward_options",
}
_TUPLES = ("objectives", "constraints", "record", "text_columns")
_INTEGERS = (
    "trials",
    "seeds",
    "confirm_top",
    "seed",
    "train_examples",
    "epochs",
    "batch_size",
    "max_tokens",
    "cohort",
    "workers",
)
_FLOATS = ("worker_cpus", "worker_gpus")
_FLAGS = ("baselines", "allow_pickle", "trust_remote_code")
#: Texts in YAML 1.2, and what people mean by them.
_WORDS = {"yes": True, "on": True, "no": False, "off": False}


def _convert(key: str, value: Any) -> Any:
    """Bring a value from YAML or the command line into the field's type."""
    try:
        if value is None:
            return None
        if key in _TUPLES:
            return (value,) if isinstance(value, str) else tuple(str(item) for item in value)
        if key in _INTEGERS:
            if isinstance(value, bool) or int(value) != float(value):
                raise ValueError
            return int(value)
        if key in _FLOATS:
            if isinstance(value, bool) or not math.isfinite(float(value)):
                raise ValueError
            return float(value)
        if key in _FLAGS:
            return value if isinstance(value, bool) else _WORDS[value.lower()]
        if key == "train_fraction":
            return parse_share(value)
        if key == "reward_options":
            return parse_reward_options(value)
        if key in ("time_s", "trial_timeout_s"):
            return parse_duration(value)
        if key == "memory_limit_bytes":
            return parse_bytes(value)
        if key == "data_dir":
            return Path(value).expanduser()
        return str(value)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"setting {key} cannot be {value!r}.") from error


def parse_share(value: Any) -> float:
    """Read ``"2%"`` or ``0.02`` as a share of one.

    Raises:
        UsageError: If it is neither.
    """
    text = str(value).strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"a share is written like 2% or 0.02, but got {value!r}.") from None


def parse_reward_options(value: Any) -> dict[str, dict[str, Any]]:
    """Read options of rewards: ``["memorization.share=0.2"]``, or a mapping of mappings.

    Returns:
        By the reward's name and the option's.

    Raises:
        UsageError: If it is neither.
    """
    rule = "an option of a reward is written like memorization.share=0.2"
    found: dict[str, dict[str, Any]] = {}
    if isinstance(value, Mapping):
        for name, options in value.items():
            if not isinstance(options, Mapping):
                raise UsageError(f"{rule}, or as a mapping below {name}, but got {options!r}.")
            found[str(name)] = {str(key): item for key, item in options.items()}
        return found
    for item in [value] if isinstance(value, str) else value:
        key, equals, text = str(item).partition("=")
        name, dot, option = key.strip().partition(".")
        if not (equals and dot and name and option):
            raise UsageError(f"{rule}, but got {item!r}.")
        found.setdefault(name, {})[option] = text.strip()
    return found


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: Any) -> float:
    """Read ``"90s"``, ``"10m"``, ``"1.5h"`` or plain seconds.

    Returns:
        Seconds.

    Raises:
        UsageError: If it is none of these.
    """
    text = str(value).strip().lower()
    unit = _SECONDS.get(text[-1:])
    try:
        return float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        raise UsageError(f"a duration is written like 90s, 10m or 1.5h, but got {value!r}.") from None


_UNITS_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(value: Any) -> int:
    """Read ``"4G"``, ``"512M"``, ``"1.5GiB"`` or plain bytes.

    Returns:
        Bytes.

    Raises:
        UsageError: If it is none of these.
    """
    word = str(value).strip().lower().removesuffix("b").removesuffix("i")
    unit = _UNITS_BYTES.get(word[-1:])
    try:
        return int(float(word[:-1]) * unit) if unit else int(float(word))
    except (ValueError, OverflowError):
        raise UsageError(f"a size is written like 4G or 512M, but got {value!r}.") from None
