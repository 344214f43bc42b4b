from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
import torch

from autopeft.training._costs import PeakMemory, device_name

CPU = torch.device("cpu")


def touch_and_give_back(size: int, *, between=lambda: None) -> None:
    """Make `size` bytes resident that were not, as no allocator does that has free memory of its own to hand out."""
    with mmap.mmap(-1, size) as block:
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
        between()


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is measured on Linux only")
def test_peak_covers_what_was_allocated_and_freed_since_the_start():
    touch_and_give_back(64 << 20)
    memory = PeakMemory(CPU)
    memory.start()
    before = memory.read()
    touch_and_give_back(48 << 20, between=memory.sample)
    assert 40 << 20 < memory.read() - before < 80 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is measured on Linux only")
def test_samples_stand_in_where_the_high_water_mark_cannot_be_reset(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    memory = PeakMemory(CPU)
    memory.start()
    before = memory.read()
    touch_and_give_back(48 << 20, between=memory.sample)
    assert memory.read() - before > 40 << 20


def test_what_cannot_be_measured_is_none(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "write_text", missing)
    monkeypatch.setattr(Path, "read_text", missing)
    memory = PeakMemory(CPU)
    memory.start()
    assert memory.read() is None
    assert PeakMemory(torch.device("meta")).read() is None


def test_device_is_named_with_its_threads():
    assert f"{torch.get_num_threads()} threads" in device_name(CPU)
