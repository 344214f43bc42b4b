from __future__ import annotations

import numpy as np
import pytest
import torch

from autopeft.configuration import ModuleSpec
from autopeft.exceptions import UsageError
from autopeft.rewards import REWARDS
from autopeft.rewards import _inference as inference
from autopeft.rewards._inference import InferencePeakMemory, Latency, spread_rows
from tests.rewards.candidates import on_candidate, placed
from tests.training.toys import lora


def test_latency_is_the_median_pass_per_text_after_warming_up(monkeypatch):
    # Oracle: a clock that says how long each pass takes; the first, slow one must not count.
    seconds = iter([100.0, 5.0, 1.0, 4.0, 2.0, 3.0])
    passes = []

    def timed(candidate, resident, rows):
        passes.append((len(rows), torch.get_num_threads()))
        return next(seconds)

    monkeypatch.setattr(inference, "_timed_pass", timed)
    found, _ = on_candidate(REWARDS["latency_s"].measure)
    assert found.value == 3.0 / 16
    assert found.details == {"merged_share": 1.0, "fastest": 1.0 / 16}
    assert passes == [(16, 1)] * 6


def test_time_is_that_of_the_merged_model(monkeypatch):
    # Hooks would show as modules that are called with something attached.
    attached = []

    def timed(candidate, resident, rows):
        modules = list(candidate.backbone.model.modules())
        attached.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules))
        return 1.0

    monkeypatch.setattr(inference, "_timed_pass", timed)
    on_candidate(REWARDS["latency_s"].measure, lora((0, 1)))
    assert set(attached) == {0}
    attached.clear()
    on_candidate(REWARDS["latency_s"].measure, placed((0, "ffn", ModuleSpec.make("serial_adapter", 4))))
    assert min(attached) > 0


def test_real_clock_gives_something_positive_and_threads_come_back():
    before = torch.get_num_threads()
    found, _ = on_candidate(Latency(texts=2, repeats=3).measure)
    assert 0 < found.details["fastest"] <= found.value < 10
    assert torch.get_num_threads() == before


def test_memory_is_weights_and_peak_and_repeats():
    def look(candidate):
        model = candidate.backbone.model
        weights = sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()])
        return REWARDS["inference_peak_memory_bytes"].measure(candidate), weights

    (found, weights), _ = on_candidate(look)
    (again, _), _ = on_candidate(look)
    assert found == again
    assert found.value == found.details["weights"] + found.details["activations"]
    assert found.details["weights"] == weights


def test_modules_that_stay_and_larger_batches_need_more_memory():
    def at(batch_size, configuration=None):
        return on_candidate(InferencePeakMemory(batch_size=batch_size).measure, configuration)[0]

    one, many = at(1), at(16)
    assert many.details["activations"] > one.details["activations"]
    adapter = at(16, placed((0, "ffn", ModuleSpec.make("serial_adapter", 4))))
    # Down 32 x 4 + 4, up 4 x 32 + 32, in float32.
    assert adapter.details["weights"] - many.details["weights"] == 4 * (32 * 4 + 4 + 4 * 32 + 32)
    assert adapter.details["activations"] >= many.details["activations"]


def test_rows_are_spread_from_the_shortest_to_the_longest():
    def look(candidate):
        resident = candidate.resident(candidate.data)
        return resident.lengths[spread_rows(resident, 5)], resident.lengths, spread_rows(resident, 99)

    (found, lengths, everyone), _ = on_candidate(look)
    assert list(found) == sorted(found)
    assert (found[0], found[-1]) == (lengths.min(), lengths.max())
    assert sorted(everyone) == list(np.arange(24))


@pytest.mark.parametrize(
    ("make", "option"), [(Latency, "texts"), (Latency, "repeats"), (InferencePeakMemory, "batch_size")]
)
def test_numbers_must_be_positive(make, option):
    with pytest.raises(UsageError, match=f"{option} must be at least 1"):
        make(**{option: 0})
