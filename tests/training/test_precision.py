from __future__ import annotations

import pytest
import torch

from autopeft.exceptions import UnknownNameError
from autopeft.training import _precision, select_precision


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_explicit_setting_is_obeyed(name):
    assert select_precision(name) is getattr(torch, name)


@pytest.mark.parametrize(("speedup", "expected"), [(0.4, torch.float32), (1.1, torch.float32), (2.0, torch.bfloat16)])
def test_auto_takes_bfloat16_only_where_it_is_clearly_faster(monkeypatch, speedup, expected):
    monkeypatch.setattr(_precision, "bfloat16_speedup", lambda: speedup)
    assert select_precision("auto", "cpu") is expected


def test_auto_measures_this_machine():
    # The choice itself depends on the machine; the measurement must be a positive number, and stay what it was.
    first = _precision.bfloat16_speedup()
    assert first > 0
    assert _precision.bfloat16_speedup() == first


def test_unknown_setting_is_refused():
    with pytest.raises(UnknownNameError, match="unknown precision 'half'"):
        select_precision("half")
