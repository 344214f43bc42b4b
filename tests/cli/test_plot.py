from __future__ import annotations

from collections.abc import Callable

import pytest

from autopeft.cli._plot import MIN_WIDTH, baseline_marks, front_plot
from autopeft.study import Study
from tests.export.studies import STUDIES, complete, draft, full_study, head_only, mixed_configuration, single_study
from tests.study.builders import make_spec


def canvas(text: str) -> list[str]:
    """The rows right of the vertical axis."""
    return [line.split("│", 1)[1] for line in text.splitlines() if "│" in line]


def test_every_kind_of_point_has_its_own_sign_at_its_place() -> None:
    study = full_study()
    rows = canvas(front_plot(study, width=100).plain)
    joined = "\n".join(rows)
    assert joined.count("★") == 1
    assert joined.count("●") >= 5
    assert all(row[rows[0].index("┆")] in "┆●★ABCDEF" for row in rows)  # the budget is one vertical line
    # The highest value is full fine-tuning's, the lowest the head's alone; they are at opposite corners.
    marks = baseline_marks(study)
    assert rows[0].rstrip().endswith(marks[5])
    assert rows[-1].startswith(marks[0])


def test_more_parameters_stand_further_right_and_better_values_higher() -> None:
    trials = [
        complete(i, draft(mixed_configuration(i + 1), cost), value)
        for i, (cost, value) in enumerate([(100, 0.5), (1000, 0.6), (10_000, 0.7)])
    ]
    study = Study(spec=make_spec(budget=1000), trials=tuple(trials))
    rows = canvas(front_plot(study, width=60, height=9).plain)
    found = [(column, row) for row, line in enumerate(rows) for column, sign in enumerate(line) if sign in "●★"]
    by_column = sorted(found)
    assert [row for _, row in by_column] == [8, 4, 0]
    # Equal ratios are equal distances on a logarithmic axis.
    assert abs((by_column[1][0] - by_column[0][0]) - (by_column[2][0] - by_column[1][0])) <= 1


def test_legend_and_axis_explain_the_signs() -> None:
    text = front_plot(full_study(), width=100).plain
    for entry in ("● front", "★ recommended", "· other trials", "┆ budget 5,000", "A-F baselines", "1k", "10k"):
        assert entry in text
    assert "accuracy on the search split" in text


def test_ascii_terminals_get_ascii_only() -> None:
    assert front_plot(full_study(), width=80, is_ascii=True).plain.isascii()


@pytest.mark.parametrize("width", [MIN_WIDTH, 55, 80, 120])
@pytest.mark.parametrize("build", STUDIES.values(), ids=STUDIES)
def test_any_study_fits_any_width(build: Callable[[], Study], width: int) -> None:
    for line in front_plot(build(), width=width).plain.splitlines():
        assert len(line) <= max(width, len("Nothing has been measured yet, so there is no plot."))


def test_nothing_to_draw_or_no_room_is_a_sentence() -> None:
    assert "no plot" in front_plot(STUDIES["failures"](), width=80).plain
    assert "needs 40 columns" in front_plot(full_study(), width=39).plain


def test_one_point_and_equal_values_do_not_divide_by_zero() -> None:
    assert front_plot(single_study(), width=60).plain.count("★") == 2  # the point and its entry in the legend
    same = [complete(i, draft(head_only(1e-3 * (i + 1)), 0), 0.0) for i in range(3)]
    assert "★" in front_plot(Study(spec=make_spec(budget=1), trials=tuple(same)), width=60).plain
