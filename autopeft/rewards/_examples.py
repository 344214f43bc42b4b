"""Taking some examples of a split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autopeft.tasks import Split
from autopeft.training import SplitData


def subset(data: SplitData, rows: npt.NDArray[np.int64]) -> Split:
    """Some rows of a split, in the order given."""
    return Split(
        texts=tuple(data.texts[row] for row in rows),
        pairs=None if data.pairs is None else tuple(data.pairs[row] for row in rows),
        targets=np.asarray(data.targets)[rows],
    )


def text_keys(data: SplitData) -> list[str]:
    """Equal for examples that say the same, up to case and white space."""
    texts = [" ".join(text.casefold().split()) for text in data.texts]
    if data.pairs is None:
        return texts
    return [f"{a}\t{' '.join(b.casefold().split())}" for a, b in zip(texts, data.pairs, strict=True)]
