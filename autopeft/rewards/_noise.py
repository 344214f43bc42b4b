"""Word-level noise: swapped, dropped and misspelled words."""

from __future__ import annotations

import string

import numpy as np


def add_noise(text: str, share: float, rng: np.random.Generator) -> str:
    """A text with noise in about a share of its words.

    Each word is hit with probability `share`, by one of three with equal chances: it changes places with the next word,
    it is dropped, or it gets a typo (two neighboring letters swapped, a letter dropped, or a letter replaced). A text
    keeps at least one word.

    Args:
        text: Words between white space.
        share: Of words, in [0, 1].
        rng: Source of randomness; the same state gives the same text.
    """
    words = text.split()
    kept: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        if rng.random() >= share:
            kept.append(word)
        else:
            kind = int(rng.integers(3))
            if kind == 0 and position + 1 < len(words):
                kept += [words[position + 1], word]
                position += 1
            elif kind != 1:
                kept.append(misspell(word, rng))
        position += 1
    return " ".join(kept) if kept else text


def misspell(word: str, rng: np.random.Generator) -> str:
    """A word with one typo; a word of one letter gets another letter."""
    kind = int(rng.integers(3)) if len(word) > 1 else 2
    if kind == 0:
        i = int(rng.integers(len(word) - 1))
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    i = int(rng.integers(len(word)))
    letter = "" if kind == 1 else string.ascii_lowercase[int(rng.integers(26))]
    return word[:i] + letter + word[i + 1 :]
