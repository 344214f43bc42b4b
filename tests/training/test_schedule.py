from __future__ import annotations

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from autopeft.training._schedule import learning_rate_factor


@pytest.mark.parametrize(("n_steps", "share"), [(1, 0.0), (10, 0.0), (10, 0.3), (85, 0.06), (7, 0.5), (3, 0.99)])
def test_equals_transformers_schedule(n_steps, share):
    # Oracle: transformers, with the number of warm-up steps that its TrainingArguments derive from a share.
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    import math

    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(n_steps * share), n_steps)
    for step in range(n_steps):
        assert learning_rate_factor(step, n_steps, share) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()
