"""Stored text as everything can show it: half a surrogate pair is no Unicode, and no browser and no frame takes it.

It comes from names of files in another encoding, and from JSON. The store gives back what it was given; those who only
look get the half as an escape, a backslash with the number of the half behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from autopeft.exceptions import UsageError
from autopeft.study import StudySpec, Trial

_T = TypeVar("_T")

_HALF = re.compile("[\ud800-\udfff]")
#: A half in JSON text; so is each half of a pair, which means no more than that somebody has to look.
_HALF_IN_JSON = re.compile(r"\\u[dD][89a-fA-F]")


def is_readable(text: str) -> bool:
    """Whether a text is Unicode: it has no half of a surrogate pair."""
    return text.isascii() or _HALF.search(text) is None


def readable(value: _T) -> _T:
    """The same JSON-ready value with every text in it readable, keys included; other values as they are."""
    found: Any = value
    if isinstance(value, str):
        found = value if is_readable(value) else value.encode("utf-8", "backslashreplace").decode("utf-8")
    elif isinstance(value, Mapping):
        found = {readable(key): readable(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        found = type(value)(readable(item) for item in value)
    return found  # type: ignore[no-any-return]


def check_study_name(name: str) -> None:
    """Refuse a name that cannot be shown as it is.

    Raises:
        UsageError: If it is not Unicode.
    """
    if not is_readable(name):
        raise UsageError(
            f"the name of a study must be Unicode text, but {name!r} has half a surrogate pair (text of another "
            "encoding?); choose another name with --study."
        )


def readable_json(text: str) -> Any:
    """What a JSON text stands for, readable."""
    value = json.loads(text)
    return value if _HALF_IN_JSON.search(text) is None and is_readable(text) else readable(value)


def readable_spec(text: str) -> StudySpec:
    """A study's stored settings, readable."""
    return StudySpec.from_dict(readable_json(text))


def readable_trial(trial: Trial) -> Trial:
    """A trial whose label, params, worker, failure and notes are readable."""
    failure = trial.failure
    if failure is not None:
        texts = {name: readable(getattr(failure, name)) for name in ("reason", "message", "traceback")}
        failure = replace(failure, **texts)
    draft = replace(trial.draft, label=readable(trial.draft.label), params=readable(trial.draft.params))
    return replace(trial, draft=draft, worker=readable(trial.worker), failure=failure, notes=readable(trial.notes))
