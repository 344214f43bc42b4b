from __future__ import annotations

import pandas as pd
import pytest

from dashboard.figures import importance_figure, importance_words

IMPORTANCE = pd.DataFrame({"parameter": ["rank", "gate", "x"], "importance": [0.7, 0.3, 0.0]})


def test_unreliable_importances_look_unreliable() -> None:
    firm, weak = (importance_figure(IMPORTANCE, is_reliable=item) for item in (True, False))
    assert list(firm.data[0].y) == ["gate", "rank"], "the largest stands on top, nothing is left out that counts"
    assert list(firm.data[0].x) == pytest.approx([30, 70])
    assert firm.data[0].marker.pattern.shape == ""
    assert weak.data[0].marker.pattern.shape == "/"
    assert weak.data[0].marker.opacity < firm.data[0].marker.opacity


def test_importances_in_words_begin_with_the_doubt() -> None:
    text = importance_words(IMPORTANCE, 0.5, 14, "only 14 trials")
    assert text.startswith("Unreliable: only 14 trials.")
    assert "explains 50 % of what it has not seen" in text
    assert "rank 70 %, gate 30 %" in text
    assert importance_words(IMPORTANCE.iloc[:0], None, 3, "only 3 trials") == "Not known: only 3 trials."
    assert importance_figure(IMPORTANCE.iloc[:0], is_reliable=False).layout.annotations
