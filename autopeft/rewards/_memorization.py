"""How much a candidate remembers of what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from autopeft.exceptions import RewardError, UsageError
from autopeft.rewards._attack import largest_gap, roc_auc, tpr_at_fpr
from autopeft.rewards._base import BuiltinReward, RewardValue
from autopeft.rewards._examples import subset, text_keys
from autopeft.study import SEARCH_SPLIT
from autopeft.tasks import Task
from autopeft.training import TrainedCandidate

_FEWEST = 20
#: False positive rates at which the true positive rate is recorded, by name.
_LEVELS = {"tpr_at_1_percent_fpr": 0.01, "tpr_at_10_percent_fpr": 0.1}


@dataclass(frozen=True, kw_only=True)
class Memorization(BuiltinReward):
    r"""Advantage of a membership-inference attack by the loss: :math:`2 \mathrm{AUC} - 1`.

    The attack takes an example for a member of the training data the lower the model's loss on it is. AUC is the area
    under its ROC curve, by ranks; the reward is 0 for an attack that guesses, 1 for one that is always right, and has
    no bias where examples are few (unlike the largest TPR - FPR, which is recorded as ``largest_gap``).

    Members are drawn from the examples that the candidate was trained on; non-members, equally many, are the last
    examples of the training split, on which no candidate of the study is trained. Both are distinct texts, and a text
    that also stands in the candidate's training data is no non-member. Half of each serve the search split's
    measurement, the other half the report split's. A training split is in random order within each class, so that both
    are draws from the same data.

    Args:
        share: Of the training split that is held out, in (0, 0.5].
        max_examples: Most examples held out.
    """

    share: float = 0.3
    max_examples: int = 1000

    name: ClassVar[str] = "memorization"
    summary: ClassVar[str] = "advantage of a loss-based membership-inference attack, 2 AUC - 1"
    source: ClassVar[str] = (
        "loss attack: Yeom et al., arXiv 1709.01604; TPR at low FPR: Carlini et al., arXiv 2112.03570; as a reward for "
        "where to tune: MemControl, arXiv 2405.19458"
    )
    cost: ClassVar[str] = "one pass over as many texts as are held out; they are lost to training"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.5:
            raise UsageError(f"memorization.share must lie in (0, 0.5], but got {self.share:g}.")
        if self.max_examples < 4 * _FEWEST:
            raise UsageError(f"memorization.max_examples must be at least {4 * _FEWEST}, but got {self.max_examples}.")

    def check(self, task: Task) -> None:
        """The training split must be large enough to spare some of it."""
        n_train = len(task.train.texts)
        if self.reserve(n_train) < 2 * _FEWEST:
            raise UsageError(
                f"reward memorization holds {100 * self.share:g} % of the training split out, at least {2 * _FEWEST} "
                f"examples, but {task.name} has only {n_train}; leave it out, or take more data."
            )

    def reserve(self, n_train: int) -> int:
        """The share, up to the most."""
        return min(int(self.share * n_train), self.max_examples)

    def measure(self, candidate: TrainedCandidate) -> RewardValue:
        """Attack the candidate."""
        members, others = self._rows(candidate)
        train = candidate.task.train
        losses = candidate.losses(subset(train, np.concatenate([members, others])))
        inside, outside = -losses[: len(members)], -losses[len(members) :]
        auc = roc_auc(inside, outside)
        details = {
            "auc": auc,
            "largest_gap": largest_gap(inside, outside),
            "member_loss": float(losses[: len(members)].mean()),
            "non_member_loss": float(losses[len(members) :].mean()),
        }
        for name, level in _LEVELS.items():
            # Of fewer examples not even one would be at most so few false positives.
            if level * len(others) >= 1:
                details[name] = tpr_at_fpr(inside, outside, level)
        return RewardValue(value=2 * auc - 1, details=details)

    def _rows(self, candidate: TrainedCandidate) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of the training split: members, and as many non-members.

        Raises:
            RewardError: If there are too few of either.
        """
        train, n_used = candidate.task.train, candidate.fidelity.train_examples
        keys = text_keys(train)
        start = max(n_used, len(keys) - self.reserve(len(keys)))
        trained = _first_rows(keys, 0, n_used)
        held_out = _first_rows(keys, start, len(keys))
        members = list(trained.values())
        others = [row for key, row in held_out.items() if key not in trained]
        half = 0 if candidate.split == SEARCH_SPLIT else 1
        found = [np.array(rows, dtype=np.int64)[half::2] for rows in (members, others)]
        n = min(map(len, found))
        if n < _FEWEST:
            raise RewardError(
                self.name,
                f"needs at least {_FEWEST} distinct members and non-members for each held-out split, but there are "
                f"{len(found[0])} and {len(found[1])}; train on fewer examples (--train-examples).",
            )
        rng = candidate.rng("memorization")
        drawn = [np.sort(rng.permutation(rows)[:n]) for rows in found]
        return drawn[0], drawn[1]


def _first_rows(keys: Sequence[str], start: int, stop: int) -> dict[str, int]:
    """The first row of each text among some rows."""
    found: dict[str, int] = {}
    for row in range(start, stop):
        found.setdefault(keys[row], row)
    return found
