from __future__ import annotations

import pytest

from autopeft.objectives import COSTS
from dashboard.figures import axis_title, empty_figure, plain, readable, shown


def test_text_is_shown_letter_by_letter() -> None:
    assert plain("<a href='x'>&\x07") == "&lt;a href='x'&gt;&amp;\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("trainable_parameters", "trainable parameters, less is better"),
        ("peak_memory_bytes", "peak memory (bytes), less is better"),
        ("examples_per_s", "training speed (examples/s), more is better"),
    ],
)
def test_axes_say_name_unit_and_direction(name: str, title: str) -> None:
    assert axis_title(COSTS[name]) == title


def test_an_unknown_direction_is_not_claimed() -> None:
    assert axis_title(COSTS["wall_time_s"], has_direction=False) == "training time (s)"


def test_names_that_nobody_foresaw_are_readable() -> None:
    assert readable("inference_time_s") == "inference time"
    assert readable("macro_f1") == "macro f1"


def test_missing_is_said() -> None:
    assert shown(None, COSTS["wall_time_s"]) == "not measured"
    assert shown(12.5, COSTS["wall_time_s"]) == "12.5 s"
    assert shown(9224.0, COSTS["inference_flops_per_token"]) == "9,224 FLOPs"
    assert shown(3 * 2**30, COSTS["peak_memory_bytes"]) == "3.0 GiB"
    assert empty_figure("<b>").layout.annotations[0].text == "&lt;b&gt;"
