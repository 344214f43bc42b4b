"""The front as a picture of characters: every kind of point has its own sign, so color is only an addition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING

from autopeft.export import StudyResult, format_score, format_short_count
from autopeft.study import Study, Trial, TrialKind, TrialState

if TYPE_CHECKING:
    from rich.text import Text

MIN_WIDTH = 40
_HEIGHT = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """The characters of a picture."""

    other: str
    front: str
    recommended: str
    budget: str
    vertical: str
    horizontal: str
    corner: str
    tick: str


_UNICODE = Signs(other="·", front="●", recommended="★", budget="┆", vertical="│", horizontal="─", corner="└", tick="┬")
_ASCII = Signs(other=".", front="o", recommended="*", budget=":", vertical="|", horizontal="-", corner="+", tick="+")


def plot_signs(*, is_ascii: bool) -> Signs:
    """The characters of a picture, for terminals that know more than ASCII or not."""
    return _ASCII if is_ascii else _UNICODE


def baseline_marks(study: Study) -> dict[int, str]:
    """The letter of every baseline trial, by number, as it stands in the picture and in the table beside it."""
    letters = ascii_uppercase + ascii_lowercase
    baselines = study.of_kind(TrialKind.BASELINE)
    return {item.number: letters[i] if i < len(letters) else "?" for i, item in enumerate(baselines)}


def front_plot(study: Study, *, width: int, height: int = _HEIGHT, is_ascii: bool = False) -> Text:
    """Draw the first objective against trainable parameters on a logarithmic axis.

    Args:
        study: Any study; one without measured trials gives a sentence instead of a picture.
        width: Columns there are; fewer than `MIN_WIDTH` give a sentence instead of a picture.
        height: Rows of the picture without axis and legend, >= 3.
        is_ascii: Draw with ASCII only, for terminals that know no more.
    """
    from rich.text import Text

    metric = study.spec.objectives[0].name
    kinds = (TrialKind.SEARCH, TrialKind.BASELINE)
    shown = [item for item in study.of_kind(*kinds, state=TrialState.COMPLETE) if item.value(metric) is not None]
    if not shown:
        return Text("Nothing has been measured yet, so there is no plot.", style="dim")
    if width < MIN_WIDTH:
        return Text(f"The plot needs {MIN_WIDTH} columns, but there are {width}.", style="dim")
    signs = plot_signs(is_ascii=is_ascii)
    values = [value for item in shown if (value := item.value(metric)) is not None]
    rows = _Rows.of(values, height)
    label_width = max(len(rows.label(row)) for row in range(height))
    columns = _Columns.of(
        [item.draft.trainable_parameters for item in shown], study.spec.budget, width - label_width - 2
    )
    cells = _draw(study, shown, rows, columns, signs)
    text = Text(f"{metric} on the search split\n")
    for row in range(height):
        text.append(f"{rows.label(row):>{label_width}} {signs.vertical}")
        for sign, style in cells[row]:
            text.append(sign, style=style)
        text.append("\n")
    text.append(f"{'':>{label_width}} {signs.corner}{columns.axis(signs)}\n{'':>{label_width + 2}}{columns.labels()}\n")
    text.append(f"{'trainable parameters (log)':>{width}}\n")
    text.append(_legend(study, signs, width))
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Where a value stands between the bottom and the top row."""

    low: float
    high: float
    height: int

    @classmethod
    def of(cls, values: Sequence[float], height: int) -> _Rows:
        low, high = min(values), max(values)
        if low == high:
            margin = abs(low) * 0.05 or 0.5
            low, high = low - margin, high + margin
        return cls(low=low, high=high, height=height)

    def row(self, value: float) -> int:
        return round((self.high - value) / (self.high - self.low) * (self.height - 1))

    def label(self, row: int) -> str:
        if row not in (0, (self.height - 1) // 2, self.height - 1):
            return ""
        return format_score(self.high - row / (self.height - 1) * (self.high - self.low))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where a parameter count stands; none at all (head only) stands in the first column, apart from the others."""

    low: float
    high: float
    start: int
    width: int

    @classmethod
    def of(cls, counts: Sequence[int], budget: int, width: int) -> _Columns:
        positive = [math.log10(count) for count in (*counts, budget) if count > 0] or [0.0]
        low, high = min(positive), max(positive)
        if high - low < 0.5:
            low, high = low - 0.5, high + 0.5
        return cls(low=low, high=high, start=4 if 0 in counts else 1, width=width)

    def column(self, count: float) -> int:
        if count <= 0:
            return 0
        share = (math.log10(count) - self.low) / (self.high - self.low)
        return self.start + round(share * (self.width - 2 - self.start))

    def ticks(self) -> list[tuple[int, str]]:
        powers = range(math.ceil(self.low), math.floor(self.high) + 1)
        marks = [(self.column(10.0**power), format_short_count(10.0**power)) for power in powers]
        return [(0, "0"), *marks] if self.start > 1 else marks

    def axis(self, signs: Signs) -> str:
        at = {column for column, _ in self.ticks()}
        return "".join(signs.tick if column in at else signs.horizontal for column in range(self.width))

    def labels(self) -> str:
        line = ""
        for column, name in self.ticks():
            at = max(0, min(column - len(name) // 2, self.width - len(name)))
            if at >= len(line) + (1 if line else 0):
                line = f"{line:<{at}}{name}"
        return line


def _draw(
    study: Study, shown: Sequence[Trial], rows: _Rows, columns: _Columns, signs: Signs
) -> list[list[tuple[str, str]]]:
    """The picture's cells (sign, style), the more important drawn over the less important."""
    metric = study.spec.objectives[0].name
    result = StudyResult.of(study)
    marks = baseline_marks(study)
    cells = [[(" ", "")] * columns.width for _ in range(rows.height)]
    for row in cells:
        row[columns.column(study.spec.budget)] = (signs.budget, "green")

    def put(trials: Sequence[Trial], sign: str | None, style: str) -> None:
        for item in trials:
            value = item.value(metric)
            if value is not None:
                column = columns.column(item.draft.trainable_parameters)
                cells[rows.row(value)][column] = (sign or marks[item.number], style)

    put([item for item in shown if item.kind is TrialKind.SEARCH], signs.other, "dim")
    put([item for item in shown if item.kind is TrialKind.BASELINE], None, "yellow")
    put(result.front.trials, signs.front, "blue")
    put([] if result.recommended is None else [result.recommended], signs.recommended, "bold blue")
    return cells


def _legend(study: Study, signs: Signs, width: int) -> str:
    entries = [
        f"{signs.front} front",
        f"{signs.recommended} recommended",
        f"{signs.other} other trials",
        f"{signs.budget} budget {study.spec.budget:,}",
    ]
    letters = list(baseline_marks(study).values())
    if letters:
        entries.append(f"{letters[0]}-{letters[-1]} baselines" if len(letters) > 1 else f"{letters[0]} baseline")
    lines = [""]
    for entry in entries:
        if lines[-1] and len(lines[-1]) + len(entry) + 3 > width:
            lines.append("")
        lines[-1] += f"{'   ' if lines[-1] else ''}{entry}"
    return "\n".join(lines)
