"""REWARDS: every reward that has a name, and how a name becomes a reward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.objectives import COSTS, QUALITY
from autopeft.rewards._activation_density import ActivationDensity
from autopeft.rewards._base import BuiltinReward, Reward
from autopeft.rewards._calibration import CalibrationError
from autopeft.rewards._forgetting import Forgetting
from autopeft.rewards._function import declared
from autopeft.rewards._inference import InferencePeakMemory, Latency
from autopeft.rewards._load import load_object
from autopeft.rewards._memorization import Memorization
from autopeft.rewards._robustness import Robustness

#: Rewards that come with autopeft.
REWARDS: Final[dict[str, BuiltinReward]] = {
    item.name: item
    for item in (
        Memorization(),
        Forgetting(),
        Latency(),
        InferencePeakMemory(),
        ActivationDensity(),
        CalibrationError(),
        Robustness(),
    )
}

#: Entry points of installed distributions that name further rewards.
ENTRY_POINTS: Final = "autopeft.rewards"

Options = Mapping[str, Mapping[str, Any]]


def installed_rewards() -> dict[str, EntryPoint]:
    """Rewards of other installed distributions by name; nothing of theirs is imported."""
    return {item.name: item for item in entry_points(group=ENTRY_POINTS)}


def known_rewards() -> tuple[str, ...]:
    """Every name that `find_reward` knows beside references to code."""
    return tuple(sorted({*REWARDS, *installed_rewards()}))


def find_reward(name: str, known: Iterable[str] = ()) -> Reward:
    """Find a reward.

    Args:
        name: Key of `REWARDS`; the name of an entry point of the group ``autopeft.rewards``; or a reference to a
            function of the user's, ``package.module:function`` or ``file.py:function``. Code is imported, and so run,
            only for a reference or an entry point that is named here.
        known: Further names for the message if there is no such reward.

    Raises:
        UnknownNameError: If there is no such reward.
        UsageError: If a reference leads to nothing that is a reward.
    """
    if name in REWARDS:
        return REWARDS[name]
    if ":" in name:
        return _as_reward(load_object(name), name)
    found = installed_rewards()
    if name not in found:
        hint = "A function of your own is named package.module:function or file.py:function."
        raise UnknownNameError("objective", name, [*known, *known_rewards()], hint=hint)
    try:
        loaded = found[name].load()
    except Exception as error:
        # The code of another distribution, which may raise anything when it is imported.
        raise UsageError(f"reward {name}: entry point {found[name].value} cannot be loaded: {error}.") from error
    made = _as_reward(loaded, name)
    if made.name != name:
        raise UsageError(f"the entry point {name} gives a reward of the name {made.name}; both must be the same.")
    return made


def find_rewards(
    names: Iterable[str], options: Options | None = None, *, taken: Iterable[str] = ()
) -> dict[str, Reward]:
    """Find several rewards and set their options.

    Args:
        names: As in `find_reward`.
        options: By a built-in reward's name, its options by name.
        taken: Names that no reward may have: the task's metrics.

    Returns:
        Rewards by the names that they were asked for by.

    Raises:
        UnknownNameError: If there is no such reward or option.
        UsageError: If an option's value is impossible, or a name is taken.
    """
    reserved = {*taken, *COSTS, QUALITY}
    found = {name: find_reward(name, reserved) for name in dict.fromkeys(names)}
    owners: dict[str, str] = {}
    for asked, item in found.items():
        if item.name in reserved or (asked != item.name and item.name in REWARDS):
            raise UsageError(f"reward {asked} has the name {item.name}, which is taken; give it another one.")
        if item.name in owners:
            raise UsageError(f"{owners[item.name]} and {asked} are rewards of the same name {item.name}; rename one.")
        owners[item.name] = asked
    for name, values in (options or {}).items():
        if name not in owners:
            raise UnknownNameError("reward", name, owners, hint="Options go with an objective or a recorded reward.")
        found[owners[name]] = _with_options(found[owners[name]], values)
    return found


def _as_reward(found: Any, reference: str) -> Reward:
    """What a reference led to, as a reward.

    Raises:
        UsageError: If it is none.
    """
    made = declared(found)
    if made is not None:
        return made
    if isinstance(found, BuiltinReward):
        return found
    if callable(found):
        raise UsageError(
            f"{reference} is a function without a direction; declare it with @autopeft.rewards.reward("
            'direction="minimize") or "maximize".'
        )
    raise UsageError(f"{reference} is no function, but {type(found).__name__}.")


def _with_options(item: Reward, values: Mapping[str, Any]) -> Reward:
    if not isinstance(item, BuiltinReward):
        raise UsageError(f"reward {item.name} has no options.")
    known = {field.name: getattr(item, field.name) for field in fields(item) if field.init}
    changes = {}
    for name, value in values.items():
        if name not in known:
            raise UnknownNameError(f"option of reward {item.name}", name, known)
        changes[name] = _converted(f"{item.name}.{name}", value, type(known[name]))
    return replace(item, **changes)


def _converted(key: str, value: Any, kind: type) -> Any:
    """A value from YAML or the command line in the type of an option.

    Raises:
        UsageError: If it has none such.
    """
    try:
        if isinstance(value, bool) or (kind is int and float(value) != int(float(value))):
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"option {key} must be of type {kind.__name__}, but got {value!r}.") from None
