"""From what a caller submits to settings that may run here: only what is allowed, and nothing that names a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from autopeft.configuration import load_search_space, search_space_files
from autopeft.exceptions import NotAllowedError, UnknownNameError, UsageError
from autopeft.orchestrate import SearchSettings, setting_name
from autopeft.service._uploads import DATA_SUFFIXES, PREFIX, SPACE_SUFFIXES, STUDY_SUFFIX, Upload
from autopeft.tasks import TASKS

#: Settings that callers decide; whatever else there is, the operator does.
ALLOWED: Final = frozenset(
    (
        "task", "budget", "backbone", "space", "sampler", "objectives", "constraints", "record", "reward_options",
        "trials", "time_s", "seeds", "confirm_top", "baselines", "seed", "study", "warm_start", "text_columns",
        "label_column", "kind", "train_fraction", "train_examples", "epochs", "fidelity", "pruner", "batch_size",
        "max_tokens", "precision", "device", "cohort", "allow_pickle", "trust_remote_code", "revision",
    )
)  # fmt: skip
#: Settings that may name an upload, and what its name ends in.
UPLOADED: Final[Mapping[str, Collection[str]]] = {
    "task": DATA_SUFFIXES,
    "space": SPACE_SUFFIXES,
    "warm_start": (STUDY_SUFFIX,),
}
#: Settings that do not make another study of it.
_LIMITS = ("trials", "time_s", "seeds", "confirm_top", "baselines", "study", "warm_start", "device", "cohort")
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PATTERNS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "study": (_STUDY, "letters, digits, dots, dashes and underscores, at most 128"),
    "backbone": (
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?"),
        "a name that `autopeft backbones` lists, or a hub id like organisation/name",
    ),
    "revision": (re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*"), "a branch, tag or commit"),
    "device": (re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?"), "auto, cpu, cuda or cuda:N"),
}
_MAX_TEXT = 1000
_MAX_CONFIRMATIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator allows a caller.

    Args:
        owner: Who submits.
        allow_code: Whether settings may name code that is run.
        max_trials: Most trials.
        find_upload: The caller's upload that a reference names.
        has_study: Whether the database has a study of that name.
    """

    owner: str
    allow_code: bool
    max_trials: int
    find_upload: Callable[[str], Upload]
    has_study: Callable[[str], bool]


def check_request(given: Mapping[str, Any], overrides: Mapping[str, Any], rules: Rules) -> tuple[str, dict[str, Any]]:
    """Check what was submitted.

    Args:
        given: Settings by their names, as a configuration file has them.
        overrides: As flags of the command line: win over the others where they are not None.
        rules: What is allowed.

    Returns:
        The study's name, and all settings that are not the defaults, JSON-ready.

    Raises:
        UsageError: If a setting is unknown or its value impossible.
        NotAllowedError: If the operator does not allow it.
        NotFoundError: If an upload is not there.
    """
    known = [item.name for item in fields(SearchSettings)]
    for key in overrides:
        if key not in known:
            raise UnknownNameError("setting", key, known)
    _check_texts(given)
    _check_texts(overrides)
    asked = {setting_name(str(key)): value for key, value in (*given.items(), *overrides.items()) if value is not None}
    # Said first: whether they would go with each other is not for the caller to mend.
    _check_owned(key for key in asked.keys() & set(known) if asked[key] != _default("", key))
    settings = SearchSettings.make(given, overrides)
    changed = {item.name: getattr(settings, item.name) for item in fields(settings)}
    changed = {key: value for key, value in changed.items() if value != _default(settings.task, key)}
    _check_owned(changed)
    _check_code(settings, rules)
    _check_reward_options(settings.reward_options)
    _check_names(settings, rules)
    _check_amount(settings, rules)
    plain = {"task": settings.task, **{key: _plain(value) for key, value in changed.items()}}
    name = settings.study or _study_name(settings, plain, rules.owner)
    return name, {**plain, "study": name}


def with_files(settings: Mapping[str, Any], find_upload: Callable[[str], Upload]) -> dict[str, Any]:
    """Settings as a driver reads them: references to uploads replaced by their paths.

    Raises:
        NotFoundError: If an upload is not there any more.
    """
    found = dict(settings)
    for key in UPLOADED:
        value = found.get(key)
        if isinstance(value, str) and value.startswith(PREFIX):
            found[key] = str(find_upload(value).path)
    return found


def _default(task: str, key: str) -> Any:
    return None if key == "task" else getattr(SearchSettings(task=task), key)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return {key: dict(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _check_owned(names: Iterable[str]) -> None:
    """Refuse what the operator decides.

    Raises:
        NotAllowedError: Names it.
    """
    refused = sorted(set(names) - ALLOWED)
    if refused:
        raise NotAllowedError(f"{', '.join(refused)}: decided by the operator of this service; leave it out.")


def _check_texts(value: Any) -> None:
    """Refuse texts that no setting needs: very long ones, and those that a terminal or a file name would stumble at."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_texts(key)
            _check_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_texts(item)
    elif isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise UsageError(f"a setting has at most {_MAX_TEXT} characters, but one has {len(value):,}.")
        if not value.isprintable():
            raise UsageError(f"a setting holds text that can be printed, but one is {value[:100]!r}.")


def _check_code(settings: SearchSettings, rules: Rules) -> None:
    """Refuse everything that would run a caller's code.

    Raises:
        NotAllowedError: Names the setting.
    """
    if rules.allow_code:
        return
    wanted = [name for name in ("allow_pickle", "trust_remote_code") if getattr(settings, name)]
    named = [*settings.objectives, *settings.record, *settings.reward_options]
    if settings.space.startswith(PREFIX):
        named += load_search_space(rules.find_upload(settings.space).path).objectives
    wanted += [f"the function {name}" for name in named if ":" in name]
    if wanted:
        raise NotAllowedError(
            f"{', '.join(wanted)}: would run code that a caller chose; the operator of this service has to allow it "
            "with --allow-code."
        )


def _check_reward_options(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse options that are no numbers: the others name files.

    Raises:
        NotAllowedError: Names the option.
    """
    for reward, values in options.items():
        for key, value in values.items():
            try:
                float(value)
            except (TypeError, ValueError):
                raise NotAllowedError(
                    f"reward_options: {reward}.{key} must be a number here, because other options name files."
                ) from None


def _check_names(settings: SearchSettings, rules: Rules) -> None:
    """Refuse every value that could be a file of this machine's, and find the uploads.

    Raises:
        UsageError: Names the setting.
        NotFoundError: If an upload is not there.
    """
    for key, suffixes in UPLOADED.items():
        value = getattr(settings, key)
        if value.startswith(PREFIX) and Path(rules.find_upload(value).path).suffix.lower() not in suffixes:
            raise UsageError(f"{key}: {value} must end in one of {', '.join(suffixes)}.")
    hint = "A file of your own is uploaded first; `autopeft search --server URL` does so."
    if not settings.task.startswith(PREFIX) and settings.task not in TASKS:
        raise UnknownNameError("task", settings.task, TASKS, hint)
    if not settings.space.startswith(PREFIX) and settings.space not in search_space_files():
        raise UnknownNameError("search space", settings.space, search_space_files(), hint)
    is_earlier = settings.warm_start not in ("auto", "none") and not settings.warm_start.startswith(PREFIX)
    if is_earlier and not (_STUDY.fullmatch(settings.warm_start) and rules.has_study(settings.warm_start)):
        raise UsageError(f"warm_start: must be auto, none, a study of this service, or an upload. {hint}")
    for key, (pattern, rule) in _PATTERNS.items():
        value = getattr(settings, key)
        if value is not None and (not pattern.fullmatch(value) or ".." in value):
            raise UsageError(f"{key}: must be {rule}, but got {value!r}.")


def _check_amount(settings: SearchSettings, rules: Rules) -> None:
    if settings.trials > rules.max_trials:
        raise NotAllowedError(f"trials: at most {rules.max_trials:,} are allowed here, but got {settings.trials:,}.")
    if settings.seeds * max(settings.confirm_top, 1) > _MAX_CONFIRMATIONS:
        raise NotAllowedError(
            f"seeds and confirm_top: at most {_MAX_CONFIRMATIONS:,} confirmations are allowed here, but got "
            f"{settings.seeds * settings.confirm_top:,}."
        )


def _study_name(settings: SearchSettings, plain: Mapping[str, Any], owner: str) -> str:
    """A readable name with a short hash of what defines the study and whose it is: submitted again, it goes on."""
    defining = {key: value for key, value in plain.items() if key not in _LIMITS}
    text = json.dumps([owner, defining], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    task = Path(settings.task).stem if settings.task.startswith(PREFIX) else settings.task
    words = [re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in (task, Path(settings.backbone).name)]
    budget = re.sub(r"[^0-9a-z.]+", "", settings.budget.lower().replace("%", "pct"))
    return f"{'-'.join(word[:40] for word in words if word) or 'study'}-{budget[:20]}-{digest}"
