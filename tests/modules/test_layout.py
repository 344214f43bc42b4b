"""Row layouts and random streams. Oracle: what must and must not change them."""

import torch

from autopeft.modules._layout import RowLayout, generator, stream_seed


def test_stream_seeds_depend_on_every_argument():
    seeds = {stream_seed(*names) for names in ((0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"))}
    assert len(seeds) == 6
    assert stream_seed(3, "a") == stream_seed(3, "a")
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat():
    first, second = (torch.rand(5, generator=generator(4, "layers.0.q")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(5, generator=generator(4, "layers.1.q")))


def test_all_candidates_are_active_at_first():
    layout = RowLayout([5, 6, 7], dtype=torch.float32, device=torch.device("cpu"))
    assert layout.active == (0, 1, 2)
    assert layout.n_active == 3
    assert layout.seeds == (5, 6, 7)
    assert not layout.is_training


def test_indices_made_in_inference_mode_can_be_trained_with():
    layout = RowLayout([5], dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        index = layout.index((1, 0))
    assert index is layout.index((1, 0))
    x = torch.ones(2, 2, requires_grad=True)
    (x.index_select(0, index) * torch.tensor([[1.0], [2.0]])).sum().backward()
    assert x.grad.tolist() == [[2, 2], [1, 1]]
