"""Choices that follow the training. Oracle: dense float64 fine-tuning with the rules written out entry by entry."""

import re

import pytest
import torch

from autopeft.modules import ADAM_BETAS, _sparse_rules, inject
from autopeft.modules._sparse_rules import Schedule
from autopeft.training._optimizer import BETAS
from tests.modules.cases import configuration, spec
from tests.modules.sparse_reference import KEY, LAYER, PART, WINDOW, Adam, Dense, check, mask_of, share, trained
from tests.tiny import tiny_backbone

N_STEPS = 13
SIZE = 1


@pytest.fixture(scope="module")
def backbone():
    """Float64, so that entries are ranked as the reference ranks them."""
    return tiny_backbone("bert", n_labels=3, dtype=torch.float64)


def ours(backbone, module, n_steps=N_STEPS):
    return trained(backbone, [configuration((LAYER, PART, module))], [7], n_steps)[0]


@pytest.mark.parametrize("pick", ["random", "magnitude", "smallest", "structured"])
def test_a_static_choice_is_masked_full_fine_tuning(backbone, pick):
    states = ours(backbone, spec("sparse", SIZE, pick=pick), 3)
    dense = Dense(backbone, LAYER, PART)
    mask = mask_of(states[0][f"{KEY}.index"], dense.weight.shape)
    delta, adam, wanted = torch.zeros_like(dense.weight), Adam(dense.weight.shape), []
    for step in range(3):
        adam.step(delta, dense.gradient(delta, step), mask)
        wanted.append((mask, delta.clone()))
    check(states, wanted)
    assert delta.abs().max() > 1e-2


@pytest.mark.parametrize("pick", ["gradient", "snip"])
def test_gradients_of_the_first_batches_choose(backbone, pick):
    warmup = 3
    states = ours(backbone, spec("sparse", SIZE, pick=pick, warmup=warmup), 6)
    dense = Dense(backbone, LAYER, PART)
    delta, adam, wanted = torch.zeros_like(dense.weight), Adam(dense.weight.shape), []
    score = torch.zeros_like(delta)
    mask = mask_of(states[0][f"{KEY}.index"], delta.shape)
    for step in range(6):
        gradient = dense.gradient(delta, step)
        if step < warmup:
            score += gradient.abs() * (dense.weight.abs() if pick == "snip" else 1.0)
            gradient = torch.zeros_like(gradient)
        adam.step(delta, gradient, mask)
        if step == warmup - 1:
            mask = mask_of(score.flatten().argsort()[-int(mask.sum()) :], delta.shape)
        wanted.append((mask, delta.clone()))
    check(states, wanted)
    assert all(state[f"{KEY}.values"].abs().max() == 0 for state in states[: warmup + 1])
    assert states[-1][f"{KEY}.values"].abs().min() > 0
    assert len(states[-1][f"{KEY}.values"]) == SIZE * (32 + 64)


def test_a_short_training_chooses_one_step_before_its_end(backbone):
    states = ours(backbone, spec("sparse", SIZE, pick="gradient", warmup=50), 3)
    assert states[2][f"{KEY}.values"].abs().max() == 0
    assert states[3][f"{KEY}.values"].abs().max() > 0


def test_grown_entries_are_frozen_once(backbone):
    """SaRA: entries whose weights have passed the threshold keep their deltas; the others go on."""
    states = ours(backbone, spec("sparse", SIZE, pick="smallest", redo="once", redo_at=0.4), 10)
    dense = Dense(backbone, LAYER, PART)
    mask = mask_of(states[0][f"{KEY}.index"], dense.weight.shape)
    threshold = dense.weight.abs().flatten().sort().values[int(mask.sum()) - 1]
    delta, adam, wanted, free = torch.zeros_like(dense.weight), Adam(dense.weight.shape), [], mask
    for step in range(10):
        adam.step(delta, dense.gradient(delta, step), free)
        if step == 3:
            free = mask & ((dense.weight + delta).abs() <= threshold)
        wanted.append((mask, delta.clone()))
    assert 0 < free.sum() < mask.sum()
    check(states, wanted)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize("redo", ["rigl", "sm3"])
def test_drop_and_grow_is_the_slow_reference(backbone, redo, decay):
    states = ours(backbone, spec("sparse", SIZE, redo=redo, decay=decay, **WINDOW))
    dense = Dense(backbone, LAYER, PART)
    reference = SlowSpiel(dense, states[0][f"{KEY}.index"].tolist(), redo, decay)
    check(states, [reference.step(step) for step in range(N_STEPS)])
    assert reference.replaced[0] > 0.5 * len(states[0][f"{KEY}.index"]), "the first exchange is of everything"
    assert len(reference.replaced) == 3


class SlowSpiel:
    """SpIEL with Python sets and loops."""

    def __init__(self, dense, index, redo, decay):
        self.dense, self.active, self.redo, self.decay = dense, set(index), redo, decay
        self.delta, self.adam = torch.zeros_like(dense.weight), Adam(dense.weight.shape)
        self.window, self.replaced = [], []

    def step(self, step):
        shape = self.delta.shape
        gradient = self.dense.gradient(self.delta, step)
        self.adam.step(self.delta, gradient, mask_of(torch.tensor(sorted(self.active)), shape))
        self.window = [*self.window, gradient.flatten()][-WINDOW["accumulate"] :]
        part = share(step, N_STEPS, decay=self.decay, **WINDOW)
        if part:
            self.exchange(int(len(self.active) * part))
        return mask_of(torch.tensor(sorted(self.active)), shape), self.delta.clone()

    def exchange(self, n):
        flat = self.delta.view(-1)
        dropped = sorted(self.active, key=lambda i: abs(float(flat[i])))[:n]
        mean, square = self.by_gradient(dropped) if self.redo == "rigl" else self.by_cover(n)
        grown = [i for i in mean if i not in dropped]
        leaving = [i for i in dropped if i not in mean][: len(grown)]
        for old, new in zip(leaving, grown, strict=False):
            self.active.remove(old)
            self.active.add(new)
            flat[old] = 0.0
            n_done = self.adam.n_done
            self.adam.first.view(-1)[new] = mean[new] * (1 - 0.9**n_done)
            self.adam.second.view(-1)[new] = square[new] * (1 - 0.999**n_done)
        self.replaced.append(len(leaving))

    def by_gradient(self, dropped):
        n = len(self.active)
        candidates = sorted(range(self.delta.numel()), key=lambda i: -abs(float(self.window[0][i])))[:n]
        kept = self.active - set(dropped)
        sums = {i: sum(float(g[i]) for g in self.window) for i in candidates if i not in kept}
        best = sorted(sums, key=lambda i: -abs(sums[i]))[: len(dropped)]
        count = len(self.window)
        return (
            {i: sums[i] / count for i in best},
            {i: sum(float(g[i]) ** 2 for g in self.window) / count for i in best},
        )

    def by_cover(self, n):
        n_rows, n_columns = self.delta.shape
        rows, columns = [0.0] * n_rows, [0.0] * n_columns
        for gradient in self.window:
            sums = {}
            for i in self.active:
                r, c = divmod(i, n_columns)
                sums[i] = min(rows[r], columns[c]) + float(gradient[i]) ** 2
            for i, value in sums.items():
                r, c = divmod(i, n_columns)
                rows[r], columns[c] = max(rows[r], value), max(columns[c], value)
        worth = {}
        for i in range(n_rows * n_columns):
            if i not in self.active:
                worth[i] = rows[i // n_columns] * columns[i % n_columns]
        best = sorted(worth, key=lambda i: -worth[i])[:n]
        bound = {i: min(rows[i // n_columns], columns[i % n_columns]) / len(self.window) for i in best}
        return dict.fromkeys(best, 0.0), bound


def test_when_and_how_much_is_exchanged():
    """Oracle: the schedule in words, with the product's own defaults."""
    schedule = Schedule(interval=20, accumulate=5, rate=0.2, decay="linear")
    shares = {step + 1: schedule.share(step, 100) for step in range(100) if schedule.share(step, 100)}
    assert shares == pytest.approx({5: 1.0, 25: 0.15, 45: 0.11, 65: 0.07, 85: 0.03})
    cosine = Schedule(interval=20, accumulate=5, rate=0.2, decay="cosine")
    assert cosine.share(24, 50) == pytest.approx(0.1)
    # Replacing at the very end would throw away what was learned.
    assert schedule.share(4, 5) == 0.0


@pytest.mark.parametrize(
    ("options", "enough", "message"),
    [
        ({"pick": "gradient"}, 9, "warmup=8 batches, but the training has 8 steps.*Lower the option warmup"),
        ({"pick": "snip", "warmup": 3}, 4, "warmup=3 batches, but the training has 3 steps"),
        ({"redo": "rigl"}, 6, "accumulate=5 steps, but the training has 5: none ever is.*option accumulate"),
        ({"redo": "sm3", "accumulate": 2}, 3, "accumulate=2 steps, but the training has 2"),
        ({"redo": "once", "pick": "smallest", "redo_at": 0.25}, 4, "redo_at=0.25 of the steps, but of 3 steps.*Raise"),
    ],
)
def test_windows_longer_than_the_training_are_told_once(bert, caplog, options, enough, message):
    """Oracle: with one step more, the choice is made in time; and that is what the numbers say."""
    sites = [(layer, part, spec("sparse", 1, **options)) for layer in (0, 1) for part in ("q", "v")]
    short = configuration(*sites)
    for n_steps, n_warnings in ((enough, 0), (enough - 1, 1)):
        caplog.clear()
        with inject(bert, [short, configuration(), short], seeds=[0, 1, 2]) as injection:
            injection.begin_training(n_steps)
        assert len(caplog.records) == n_warnings
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("autopeft.modules", "WARNING")
    assert re.search(message, record.getMessage())


def test_entries_that_stay_put_warn_of_nothing(bert, caplog):
    with inject(bert, [configuration((0, "q", spec("sparse", 1)), (0, "v", spec("lora", 1)))], seeds=[0]) as injection:
        injection.begin_training(1)
    assert not caplog.records


def test_seeds_of_moments_follow_the_optimizers_rates() -> None:
    assert _sparse_rules.ADAM_BETAS is BETAS is ADAM_BETAS
