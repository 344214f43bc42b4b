from __future__ import annotations

import numpy as np
import pytest
import torch

from autopeft.training._inputs import ResidentSplit
from autopeft.training._tokens import tokenize_split
from tests.tiny import PAD, tiny_tokenizer
from tests.training.toys import toy_split


@pytest.mark.parametrize("pairs", [False, True])
def test_batch_equals_the_tokenizers_own_padding(pairs):
    # Oracle: the tokenizer's `pad`, through transformers.
    split, tokenizer = toy_split(20, 0, pairs=pairs), tiny_tokenizer()
    tokens = tokenize_split(split, tokenizer, 30, None)
    resident = ResidentSplit("train", tokens, PAD, torch.device("cpu"))
    rows = np.array([7, 0, 7, 19])
    inputs = resident.inputs(rows, 40)
    expected = tokenizer(
        [split.texts[i] for i in rows],
        [split.pairs[i] for i in rows] if split.pairs else None,
        truncation=True,
        max_length=30,
        return_tensors="pt",
        padding=True,
    )
    expected = tokenizer.pad(expected, padding="max_length", max_length=40)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(getattr(inputs, name), expected[name]), name
    assert torch.equal(resident.targets(rows), torch.from_numpy(split.targets[rows]))


def test_token_index_names_each_tokens_place_and_the_total_for_padding():
    tokens = tokenize_split(toy_split(5, 0), tiny_tokenizer(), 30, None)
    inputs = ResidentSplit("train", tokens, PAD, torch.device("cpu")).inputs(np.array([3]), 35)
    length = int(tokens.lengths[3])
    start = int(tokens.offsets[3])
    assert inputs.token_index[0].tolist() == [*range(start, start + length), *[len(tokens.token_ids)] * (35 - length)]


def test_values_to_predict_are_float32():
    tokens = tokenize_split(toy_split(5, 0, regression=True), tiny_tokenizer(), 30, None)
    resident = ResidentSplit("train", tokens, PAD, torch.device("cpu"))
    assert resident.targets(np.array([1, 2])).dtype is torch.float32
