"""Everything autopeft raises on purpose.

AutoPeftError                      exit code 1
├── UsageError (ValueError)        exit code 2: the user's input is wrong
│   ├── ConfigurationError           a configuration that cannot exist
│   ├── SearchSpaceError             a search-space file with mistakes (all of them listed)
│   ├── BudgetError                  a parameter budget that cannot be read or met
│   ├── UnknownNameError (KeyError)  a name that is not in a registry; carries the nearest names
│   ├── TaskError                    a data set that cannot be used
│   ├── BackboneError                a model that cannot be used
│   ├── StudyMismatchError           resuming a study with other settings
│   └── NotAllowedError              what a service's operator does not allow
├── InfeasibleError                exit code 3: nothing satisfies the constraints
├── MachineError                  exit code 4: the machine, not the input
│   ├── StoreError                   database unreachable, locked, unwritable or of a newer schema
│   ├── CacheError                   disk full or unwritable cache folder
│   ├── ArtifactError                shared files out of reach, damaged, too large, or no room for them
│   └── ServiceError                 a service that cannot be reached, or does not know the token
├── NotFoundError (LookupError)    exit code 5: no such study or trial
├── TrialConflictError             another process took the number, the configuration or the lease
├── DriverConflictError            another process drives the study
├── SubmissionConflictError        the search is another caller's, or at work
└── TrialError                     one trial failed; the search goes on
    ├── DivergenceError              non-finite loss
    ├── OutOfMemoryError             even the smallest micro-batch does not fit
    └── RewardError                  a reward could not be measured
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class AutoPeftError(Exception):
    """Root of every error raised on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(AutoPeftError, ValueError):
    """The user's input breaks a rule that the message names."""

    exit_code = 2


class ConfigurationError(UsageError):
    """A PEFT configuration that cannot exist."""


class SearchSpaceError(UsageError):
    """A search-space file with mistakes.

    Args:
        source: File or name of the space.
        problems: Every mistake found, each starting with the key it concerns.
    """

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        listing = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"search space {source} has {len(self.problems)} problem(s):\n{listing}")


class BudgetError(UsageError):
    """A parameter budget that cannot be read or met."""


class UnknownNameError(UsageError, KeyError):
    """A name that is not registered.

    Args:
        kind: What was looked up, for example ``"task"``.
        name: The name that was not found.
        known: The names that exist.
        hint: What else the user may do, appended to the message.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.5)
        suggestion = f" Did you mean {' or '.join(near)}?" if near else ""
        listing = ", ".join(self.known) if self.known else "none"
        self.message = f"unknown {kind} {name!r}.{suggestion} Known: {listing}." + (f" {hint}" if hint else "")
        super().__init__(self.message)

    def __str__(self) -> str:
        # KeyError shows repr() of its argument, which would quote the whole sentence.
        return self.message


class TaskError(UsageError):
    """A data set that cannot be used."""


class BackboneError(UsageError):
    """A pretrained model that cannot be used."""


class StudyMismatchError(UsageError):
    """A study exists under this name with other settings."""


class NotAllowedError(UsageError):
    """The operator of a service does not allow what was asked for."""


class InfeasibleError(AutoPeftError):
    """Nothing satisfies the constraints."""

    exit_code = 3


class MachineError(AutoPeftError):
    """The machine cannot do what was asked."""

    exit_code = 4


class StoreError(MachineError):
    """The database cannot be used."""


class CacheError(MachineError):
    """The cache folder cannot be used."""


class ArtifactError(MachineError):
    """Files that machines share cannot be written or read."""


class ServiceError(MachineError):
    """A service cannot be reached, does not know the token, or failed."""


class NotFoundError(AutoPeftError, LookupError):
    """No study or trial of that name."""

    exit_code = 5


class TrialConflictError(AutoPeftError):
    """Another process took the trial number, the configuration or the lease first."""


class DriverConflictError(AutoPeftError):
    """Another process drives the study, or nobody does any more."""


class SubmissionConflictError(AutoPeftError):
    """A submitted search is another caller's, or at work."""


class TrialError(AutoPeftError):
    """One trial failed; the search goes on."""


class DivergenceError(TrialError):
    """The training loss became non-finite."""


class OutOfMemoryError(TrialError):
    """Even the smallest micro-batch does not fit into memory."""


class RewardError(TrialError):
    """A reward could not be measured.

    Args:
        name: Name of the reward.
        message: What went wrong.
    """

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(f"reward {name}: {message}")
