"""How much worse a candidate models general text than the backbone did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autopeft.backbones import Backbone, LanguageHead, load_language_head
from autopeft.exceptions import RewardError, UsageError
from autopeft.rewards._base import BuiltinReward, RewardValue
from autopeft.rewards._general_text import general_text
from autopeft.training import TrainedCandidate

#: Logits of a batch that are held at once.
_LOGITS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batch:
    """Texts with the tokens to predict.

    Args:
        input_ids: Shape (rows, t); for an encoder with masked tokens.
        attention_mask: Shape (rows, t).
        labels: Token to predict at each position, -100 elsewhere, shape (rows, t).
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


@dataclass(slots=True, kw_only=True, eq=False)
class _Shared:
    """What all candidates on a backbone share."""

    backbone: Backbone
    head: LanguageHead
    batches: list[_Batch]
    before: float


@dataclass(frozen=True, kw_only=True)
class Forgetting(BuiltinReward):
    """Rise of the backbone's own language-model loss on general text, in nats per predicted token.

    The loss with the candidate's modules minus the loss without: masked language modelling for encoders, prediction of
    the next token for decoders, by the head that the checkpoint was pretrained with, which stays as it is. The texts
    and the masked tokens are the same for every candidate, seed and split. A checkpoint without its pretraining head
    cannot be measured, and is refused: a new head would have to be trained, and would say what it has learned itself.

    Args:
        text: A text file with paragraphs between empty lines; empty for Python's language reference.
        max_texts: Paragraphs read, drawn at random, >= 1.
        max_tokens: Longer paragraphs are cut off, >= 8.
        mask_share: Of an encoder's tokens that are masked, in (0, 1).
    """

    text: str = ""
    max_texts: int = 100
    max_tokens: int = 64
    mask_share: float = 0.15
    _shared: dict[str, _Shared] = field(init=False, repr=False, compare=False, default_factory=dict)

    name: ClassVar[str] = "forgetting"
    unit: ClassVar[str] = "nats"
    summary: ClassVar[str] = "rise of the backbone's own language-model loss on 100 paragraphs of general text"
    source: ClassVar[str] = (
        "our own; masked loss: BERT, arXiv 1810.04805; that LoRA learns less and forgets less: Biderman et al., "
        "arXiv 2405.09673"
    )
    cost: ClassVar[str] = "one pass over 100 texts through the language-model head, per split"
    needs_language_head: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, low in (("max_texts", 1), ("max_tokens", 8)):
            if getattr(self, name) < low:
                raise UsageError(f"forgetting.{name} must be at least {low}, but got {getattr(self, name)}.")
        if not 0 < self.mask_share < 1:
            raise UsageError(f"forgetting.mask_share must lie in (0, 1), but got {self.mask_share:g}.")

    def prepare(self, candidate: TrainedCandidate) -> None:
        """Load the head and measure the backbone without modules."""
        backbone = candidate.backbone
        known = self._shared.get("")
        if known is not None and known.backbone is backbone:
            return
        head = load_language_head(backbone)
        batches = list(self._batches(backbone))
        self._shared[""] = _Shared(
            backbone=backbone, head=head, batches=batches, before=_mean_loss(head, batches, candidate, is_tuned=False)
        )

    def measure(self, candidate: TrainedCandidate) -> RewardValue:
        """Measure the loss with the candidate's modules in the backbone."""
        self.prepare(candidate)
        shared = self._shared[""]
        with candidate.installed():
            after = _mean_loss(shared.head, shared.batches, candidate, is_tuned=True)
        return RewardValue(value=after - shared.before, details={"before": shared.before, "after": after})

    def _batches(self, backbone: Backbone) -> Iterator[_Batch]:
        """Batches of similar length; which texts and which masks depends on the options alone."""
        texts = general_text(self.text)
        rng = np.random.default_rng(0)
        chosen = [texts[i] for i in rng.permutation(len(texts))[: self.max_texts]]
        tokenizer: Any = backbone.tokenizer
        limit = min(self.max_tokens, backbone.max_positions)
        encoded = tokenizer(chosen, truncation=True, max_length=limit, padding=False)["input_ids"]
        rows = sorted((ids for ids in encoded if len(ids) > 1), key=len)
        n_ids = backbone.model.get_input_embeddings().num_embeddings
        size = max(1, _LOGITS // (limit * n_ids))
        for start in range(0, len(rows), size):
            yield self._batch(rows[start : start + size], backbone, rng)

    def _batch(self, rows: list[list[int]], backbone: Backbone, rng: np.random.Generator) -> _Batch:
        length = max(map(len, rows))
        ids = np.full((len(rows), length), backbone.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        if backbone.is_decoder:
            labels = np.full_like(ids, -100)
            labels[:, :-1] = np.where(mask[:, 1:] == 1, ids[:, 1:], -100)
        else:
            token = backbone.tokenizer.mask_token_id
            if token is None:
                raise RewardError(self.name, f"the tokenizer of {backbone.name} has no mask token.")
            is_special = np.isin(ids, backbone.tokenizer.all_special_ids)
            is_masked = (rng.random(ids.shape) < self.mask_share) & (mask == 1) & ~is_special
            labels = np.where(is_masked, ids, -100)
            ids = np.where(is_masked, token, ids)
        device = backbone.device
        return _Batch(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            labels=torch.from_numpy(labels).to(device),
        )


def _mean_loss(head: LanguageHead, batches: list[_Batch], candidate: TrainedCandidate, *, is_tuned: bool) -> float:
    """Cross entropy in nats per predicted token, over all batches."""
    total, n = 0.0, 0
    for batch in batches:
        positions = candidate.position_ids(batch.attention_mask) if is_tuned else None
        logits = head.logits(batch.input_ids, batch.attention_mask, positions)
        wanted = batch.labels != -100
        total += float(F.cross_entropy(logits[wanted], batch.labels[wanted], reduction="sum"))
        n += int(wanted.sum())
    if n == 0:
        raise RewardError("forgetting", "the general text has no token to predict; give a longer one.")
    return total / n
