from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopeft.rewards._noise import add_noise, misspell

#: No two of them are one edit apart.
WORDS = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest()[:12] for i in range(2000)]


@given(text=st.text(max_size=80), seed=st.integers(0, 99), share=st.floats(0, 1))
def test_same_state_same_text_and_never_empty(text, seed, share):
    first, again = (add_noise(text, share, np.random.default_rng(seed)) for _ in range(2))
    assert first == again
    assert bool(first.split()) == bool(text.split())


@given(text=st.text(max_size=80))
def test_no_noise_changes_white_space_only(text):
    assert add_noise(text, 0.0, np.random.default_rng(0)).split() == text.split()


def test_about_the_share_of_words_is_hit():
    noisy = add_noise(" ".join(WORDS), 0.1, np.random.default_rng(0)).split()
    gone = set(WORDS) - set(noisy)
    typos = set(noisy) - set(WORDS)
    # A third of the 10 % is dropped, a third misspelled (gone too, but replaced), a third changes places.
    assert 40 < len(gone) - len(typos) < 95
    assert 40 < len(typos) < 95
    kept = [word for word in noisy if word in set(WORDS)]
    order = [WORDS.index(word) for word in kept]
    swaps = sum(a > b for a, b in pairwise(order))
    assert 40 < swaps < 95
    assert len(order) == len(set(order))


@given(word=st.text(alphabet="abcde", min_size=1, max_size=8), seed=st.integers(0, 99))
def test_typo_is_one_edit(word, seed):
    typo = misspell(word, np.random.default_rng(seed))
    assert len(typo) in (len(word), len(word) - 1)
    assert typo
    if len(typo) == len(word):
        different = [i for i in range(len(word)) if word[i] != typo[i]]
        is_swap = len(different) == 2 and Counter(word) == Counter(typo) and different[1] - different[0] == 1
        assert len(different) <= 1 or is_swap
    else:
        assert any(word[:i] + word[i + 1 :] == typo for i in range(len(word)))
