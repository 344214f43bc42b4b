import numpy as np
import torch

from autopeft.rewards._batches import forward_batches
from tests.rewards.candidates import on_candidate
from tests.training.toys import toy_task


def test_every_row_passes_once_and_gives_its_outputs():
    def look(candidate):
        rows = np.array([50, 3, 17, 40, 8, 69])
        expected = candidate.outputs()[rows]
        with candidate.installed(), torch.inference_mode():
            found = [run() for _, run in forward_batches(candidate, rows)]
        lengths = candidate.resident(candidate.data).lengths[rows]
        order = np.argsort(lengths, kind="stable")
        return torch.cat(found).numpy(), expected[order]

    (found, expected), _ = on_candidate(look, task=toy_task(n_train=100, n_search=70))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_batches_are_of_similar_length_and_bounded():
    def look(candidate):
        return [item.input_ids.shape for item, _ in forward_batches(candidate, np.arange(70))]

    shapes, _ = on_candidate(look, task=toy_task(n_train=100, n_search=70))
    assert [rows for rows, _ in shapes] == [32, 32, 6]
    assert [length for _, length in shapes] == sorted(length for _, length in shapes)
