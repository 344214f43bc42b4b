"""Tokenised splits: read once, kept flat, cached on disk under a content hash."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autopeft.exceptions import CacheError
from autopeft.training._cache import atomic_file, content_key
from autopeft.training._data import SplitData

_FORMAT = 1
_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenizedSplit:
    """A split as tokens, all examples one after another.

    Args:
        token_ids: Ids of all tokens, shape (total tokens,).
        type_ids: Segment of each token (0 or 1), same shape; None where the tokenizer gives none.
        offsets: Example i has the tokens ``offsets[i]`` to ``offsets[i + 1]``, shape (n + 1,).
        targets: Class indices or values, shape (n,).
        key: Content hash of texts, tokenizer and truncation.
    """

    token_ids: npt.NDArray[np.int32]
    type_ids: npt.NDArray[np.int8] | None
    offsets: npt.NDArray[np.int64]
    targets: npt.NDArray[Any]
    key: str

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per example, shape (n,)."""
        return np.diff(self.offsets)


def tokenize_split(split: SplitData, tokenizer: Any, max_tokens: int, cache_dir: Path | None) -> TokenizedSplit:
    """Tokenise a split, or read it from the cache.

    A cache that cannot be read or written costs time, not the run.

    Args:
        split: Texts, pairs and targets.
        tokenizer: A transformers tokenizer.
        max_tokens: Longer inputs are truncated, the longer text of a pair first.
        cache_dir: Folder of the cache; None does without.
    """
    key = content_key(
        _FORMAT, max_tokens, tokenizer_identity(tokenizer), len(split.texts), *split.texts, *(split.pairs or ())
    )
    path = None if cache_dir is None else cache_dir / "tokens" / f"{key}.npz"
    arrays = None if path is None else _read(path)
    if arrays is None:
        arrays = _tokenize(split, tokenizer, max_tokens)
        if path is not None:
            _write(path, arrays)
    return TokenizedSplit(
        token_ids=arrays["token_ids"],
        type_ids=arrays.get("type_ids"),
        offsets=arrays["offsets"],
        targets=split.targets,
        key=key,
    )


def tokenizer_identity(tokenizer: Any) -> str:
    """A text that differs whenever two tokenizers may tokenise differently."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Truncation and padding are set call by call: what an earlier call left behind is not the tokenizer's identity.
        state = json.loads(backend.to_str())
        body = json.dumps({**state, "truncation": None, "padding": None}, sort_keys=True)
    else:
        body = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = json.dumps({key: str(value) for key, value in tokenizer.special_tokens_map.items()}, sort_keys=True)
    return content_key(type(tokenizer).__name__, tokenizer.model_input_names, body, special)


def _tokenize(split: SplitData, tokenizer: Any, max_tokens: int) -> dict[str, npt.NDArray[Any]]:
    token_ids: list[npt.NDArray[np.int32]] = []
    type_ids: list[npt.NDArray[np.int8]] = []
    lengths: list[int] = []
    for start in range(0, len(split.texts), _CHUNK):
        texts = list(split.texts[start : start + _CHUNK])
        pairs = None if split.pairs is None else list(split.pairs[start : start + _CHUNK])
        encoded = tokenizer(
            texts, pairs, truncation=True, max_length=max_tokens, padding=False, return_attention_mask=False
        )
        segments = encoded.get("token_type_ids")
        for i, ids in enumerate(encoded["input_ids"]):
            # A tokenizer without special tokens gives nothing for an empty text, and a row needs a token to be pooled.
            row = ids or [_filler(tokenizer)]
            token_ids.append(np.asarray(row, dtype=np.int32))
            lengths.append(len(row))
            if segments is not None:
                type_ids.append(np.asarray(segments[i] or [0], dtype=np.int8))
    arrays: dict[str, npt.NDArray[Any]] = {
        "token_ids": np.concatenate(token_ids),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }
    if type_ids:
        arrays["type_ids"] = np.concatenate(type_ids)
    return arrays


def _filler(tokenizer: Any) -> int:
    for candidate in (tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def _read(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    try:
        # numpy leaves a damaged file open when it is given a path.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    except CacheError:
        # Tokenising again costs seconds; a full disk must not cost the run.
        return
