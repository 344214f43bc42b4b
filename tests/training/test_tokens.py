from __future__ import annotations

import errno

import numpy as np
import pytest

from autopeft.tasks import Split
from autopeft.training import _tokens
from autopeft.training._tokens import tokenize_split
from tests.tiny import tiny_tokenizer
from tests.training.toys import toy_split


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "llama"])
def test_equals_the_tokenizer_text_by_text(architecture, pairs):
    # Oracle: the tokenizer itself, one example at a time.
    split, tokenizer = toy_split(30, 0, pairs=pairs), tiny_tokenizer(architecture)
    tokens = tokenize_split(split, tokenizer, 16, None)
    for i, text in enumerate(split.texts):
        expected = tokenizer(text, split.pairs[i] if split.pairs else None, truncation=True, max_length=16)
        part = slice(tokens.offsets[i], tokens.offsets[i + 1])
        assert tokens.token_ids[part].tolist() == expected["input_ids"]
        if "token_type_ids" in expected:
            assert tokens.type_ids[part].tolist() == expected["token_type_ids"]
    assert ("token_type_ids" in expected) == (tokens.type_ids is not None)


def test_empty_text_still_has_a_token():
    split = Split(texts=("", "a b"), pairs=None, targets=np.zeros(2, dtype=np.int64))
    tokens = tokenize_split(split, tiny_tokenizer("llama"), 16, None)
    assert tokens.lengths.tolist() == [1, 2]


def test_long_text_is_truncated():
    split = Split(texts=("word " * 5000,), pairs=None, targets=np.zeros(1, dtype=np.int64))
    assert tokenize_split(split, tiny_tokenizer(), 32, None).lengths.tolist() == [32]


def test_second_call_reads_the_cache(tmp_path, monkeypatch):
    split, tokenizer = toy_split(10, 0), tiny_tokenizer()
    first = tokenize_split(split, tokenizer, 16, tmp_path)
    monkeypatch.setattr(_tokens, "_tokenize", lambda *_: pytest.fail("tokenised again"))
    second = tokenize_split(split, tokenizer, 16, tmp_path)
    np.testing.assert_array_equal(first.token_ids, second.token_ids)
    np.testing.assert_array_equal(first.offsets, second.offsets)


def test_other_texts_tokenizer_or_truncation_have_other_keys(tmp_path):
    split, tokenizer = toy_split(10, 0), tiny_tokenizer()
    grown = tiny_tokenizer()
    grown.add_tokens(["filetest"])
    keys = {
        tokenize_split(*arguments, tmp_path).key
        for arguments in (
            (split, tokenizer, 16),
            (split, tokenizer, 8),
            (split, grown, 16),
            (split, tiny_tokenizer("roberta"), 16),
            (toy_split(10, 1), tokenizer, 16),
        )
    }
    assert len(keys) == 5


def test_damaged_cache_file_is_replaced(tmp_path):
    split, tokenizer = toy_split(10, 0), tiny_tokenizer()
    tokens = tokenize_split(split, tokenizer, 16, tmp_path)
    (path,) = (tmp_path / "tokens").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(tokenize_split(split, tokenizer, 16, tmp_path).token_ids, tokens.token_ids)
    assert path.read_bytes() == whole


def test_full_disk_does_not_stop_the_run(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    assert len(tokenize_split(toy_split(10, 0), tiny_tokenizer(), 16, tmp_path)) == 10
    assert list((tmp_path / "tokens").iterdir()) == []
