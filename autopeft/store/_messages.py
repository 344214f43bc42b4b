"""The errors and rules that both stores share, in the same words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

from autopeft.exceptions import DriverConflictError, NotFoundError, StudyMismatchError, TrialConflictError
from autopeft.store._base import LOST_WORKER
from autopeft.study import Failure, TrialState

_EXECUTOR_LENGTH = 16


def study_not_found(name: str, known: Iterable[str], url: str) -> NotFoundError:
    """No study of that name; the nearest names are offered."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = f"Did you mean {' or '.join(repr(item) for item in near)}?"
    elif names:
        hint = f"It has {', '.join(repr(item) for item in names[:5])}{', ...' if len(names) > 5 else ''}."
    else:
        hint = "It has no studies yet."
    return NotFoundError(f"no study named {name!r} in {url}. {hint}")


def trial_not_found(study_name: str, number: int, n_trials: int) -> NotFoundError:
    """No trial of that number; the range of numbers is stated."""
    has = f"it has trials 0 to {n_trials - 1}" if n_trials else "it has no trials yet"
    return NotFoundError(f"no trial {number} in study {study_name!r}; {has}.")


def study_exists(name: str, url: str) -> StudyMismatchError:
    """The name is taken."""
    return StudyMismatchError(f"a study named {name!r} exists already in {url}; choose another name or resume it.")


def study_mismatch(name: str, differences: Sequence[str]) -> StudyMismatchError:
    """The study has other settings; "here" is what was asked for, "there" what is stored."""
    listing = "\n".join(f"  - {item}" for item in differences)
    return StudyMismatchError(
        f"study {name!r} was started with other settings (here: asked for now; there: stored):\n{listing}\n"
        "Resume it with the stored settings, or choose another name with --study."
    )


def number_taken(study_name: str, number: int, expected: int) -> TrialConflictError:
    """Another process added a trial in between."""
    return TrialConflictError(
        f"the next trial of study {study_name!r} is {expected}, not {number}; load the study again and retry."
    )


def identity_taken(study_name: str, number: int) -> TrialConflictError:
    """The same configuration, fidelity and seed is there already."""
    return TrialConflictError(
        f"study {study_name!r} already has this configuration at this fidelity and seed: trial {number}."
    )


def not_held(study_name: str, number: int, worker: str, state: TrialState, holder: str | None) -> TrialConflictError:
    """The worker lost the trial, or never had it."""
    now = f"is {state}" if holder is None else f"is held by {holder!r}"
    return TrialConflictError(f"worker {worker!r} does not hold trial {number} of study {study_name!r}, which {now}.")


def not_pruned(study_name: str, number: int, state: TrialState) -> TrialConflictError:
    """Only a pruned trial can be continued; perhaps another process was faster."""
    return TrialConflictError(f"trial {number} of study {study_name!r} is {state}; only a PRUNED one can be continued.")


def lost_worker(worker: str, attempts: int) -> Failure:
    """The failure of a trial whose workers were lost too often."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return Failure(reason=LOST_WORKER, message=f"its worker was lost {times}, the last one was {worker}.")


def not_driver(study_name: str, holder: str, other: str | None) -> DriverConflictError:
    """The process lost the study to another one, or never drove it."""
    now = "nobody does" if other is None else f"{other!r} does"
    return DriverConflictError(f"{holder!r} does not drive study {study_name!r} any more; {now}.")


def check_driver(holder: str, lease_s: float, executor: str, weight: float) -> None:
    """Refuse a driver without a name, a duration, an executor or a share.

    Raises:
        ValueError: Names the rule.
    """
    check_claim(holder, lease_s)
    if not 0 < len(executor) <= _EXECUTOR_LENGTH:
        raise ValueError(f"an executor has a name of 1 to {_EXECUTOR_LENGTH} letters, but got {executor!r}.")
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"`weight > 0` must hold, but got {weight}.")


def check_limit(limit: int) -> None:
    """Refuse to claim no trial at all.

    Raises:
        ValueError: Names the rule.
    """
    if limit < 1:
        raise ValueError(f"`limit >= 1` must hold, but got {limit}.")


def check_claim(worker: str, lease_s: float) -> None:
    """Refuse a lease without holder or duration.

    Raises:
        ValueError: Names the rule.
    """
    if not worker:
        raise ValueError("a worker needs a name, but got an empty one.")
    if not (math.isfinite(lease_s) and lease_s > 0):
        raise ValueError(f"`lease_s > 0` must hold, but got {lease_s}.")


def check_notes(n_drafts: int, n_notes: int) -> None:
    """Refuse notes of which nobody could tell whose they are.

    Raises:
        ValueError: Names the rule.
    """
    if n_notes not in (0, n_drafts):
        raise ValueError(f"there must be notes for none or all of the trials, but got {n_notes} for {n_drafts}.")


def check_max_attempts(max_attempts: int) -> None:
    """Refuse a limit that no trial could meet.

    Raises:
        ValueError: Names the rule.
    """
    if max_attempts < 1:
        raise ValueError(f"`max_attempts >= 1` must hold, but got {max_attempts}.")
