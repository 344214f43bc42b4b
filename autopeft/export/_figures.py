"""Figures of a study as SVG: pure functions of the stored trials, the same for the report and the README.

Colors are those of Okabe and Ito, told apart with any color vision, and every kind of point has its own shape as well.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from autopeft.export._format import format_count, format_score, format_short_count, printable
from autopeft.export._grid import PRESENT, Grid, configuration_grid, layer_count
from autopeft.export._result import StudyResult, display_name
from autopeft.objectives import Direction
from autopeft.study import Study, Trial, TrialKind, TrialState

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN, _GREY, _BLACK = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#222222"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, searchable, small
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,  # a label with dollar signs is not a formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _BLACK,
    "path.simplify": False,
}


def front_figure(study: Study, *, id_prefix: str = "front") -> str:
    """Draw quality against trainable parameters: search trials, front, recommendation, baselines and budget.

    Args:
        study: Drawn as it is, however few trials it has.
        id_prefix: Start of every id in the picture, so that several can stand in one page.

    Returns:
        A complete ``<svg>`` element without references to anything outside it.
    """
    result = StudyResult.of(study)
    metric = study.spec.objectives[0]
    searched, baselines = measured(study, TrialKind.SEARCH), measured(study, TrialKind.BASELINE)
    with _style(id_prefix):
        figure, axes = _canvas(8.0, 4.8)
        place = _parameter_axis(axes, study, [*searched, *baselines])
        axes.axvline(study.spec.budget, color=_GREEN, linestyle="--", linewidth=1.2, zorder=1)
        axes.annotate(
            f"budget {format_short_count(study.spec.budget)}",
            (study.spec.budget, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            color=_GREEN,
            fontsize=9,
        )
        members = {item.number for item in result.front.trials}
        others = [item for item in searched if item.number not in members]
        _scatter(axes, place, metric.name, others, "o", _GREY, "other search trials", size=22, alpha=0.6)
        _scatter(axes, place, metric.name, baselines, "^", _ORANGE, "baselines", size=46)
        _front_line(axes, place, study, result)
        _scatter(axes, place, metric.name, result.front.trials, "o", _BLUE, "front of the search", size=42)
        chosen = [] if result.recommended is None else [result.recommended]
        _scatter(axes, place, metric.name, chosen, "*", _BLUE, "recommended", size=190, edge=_BLACK)
        axes.set_ylabel(f"{metric.name} on the search split")
        axes.set_xlabel("trainable parameters without the task head (logarithmic)")
        axes.grid(visible=True, color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
        if searched or baselines:
            figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
            _name_baselines(figure, axes, place, metric.name, _best_per_method(study, baselines), [*searched, *chosen])
        else:
            axes.text(0.5, 0.5, "no trial has been measured yet", transform=axes.transAxes, ha="center", color=_GREY)
        return _svg(figure, id_prefix, "Quality against trainable parameters", front_description(study))


def front_description(study: Study) -> str:
    """The front figure in words, for those who do not see it."""
    result = StudyResult.of(study)
    metric = study.spec.objectives[0].name
    searched, baselines = measured(study, TrialKind.SEARCH), measured(study, TrialKind.BASELINE)
    text = (
        f"Scatter plot of {metric} on the search split against trainable parameters on a logarithmic axis: "
        f"{len(searched)} measured search trials, {len(result.front.trials)} of them on the front, "
        f"{len(baselines)} measured baselines, "
        f"and a line at the budget of {format_count(study.spec.budget)} parameters."
    )
    if result.recommended is not None:
        text += f" Recommended: {_point(result.recommended, metric)}."
    if result.best_baseline is not None:
        text += f" Best baseline within the budget: {_point(result.best_baseline, metric)}."
    return printable(text)


def heatmap_figure(study: Study, trial: Trial | None = None, *, id_prefix: str = "heatmap") -> str:
    """Draw which module has which size in which layer.

    Args:
        study: Gives the number of layers, and the recommended trial if none is named.
        trial: Whose configuration is drawn.
        id_prefix: Start of every id in the picture.

    Returns:
        A complete ``<svg>`` element; one that says so where there is nothing to draw.
    """
    shown = trial or StudyResult.of(study).recommended
    grid = Grid(columns=(), rows=(), sizes=())
    if shown is not None:
        grid = configuration_grid(shown.configuration, layer_count(study))
    with _style(id_prefix):
        n_rows, n_columns = len(grid.rows), len(grid.columns)
        figure, axes = _canvas(2.4 + 0.62 * max(n_columns, 4), 1.1 + 0.42 * max(n_rows, 1))
        if n_rows:
            _draw_grid(axes, grid)
        else:
            reason = "no configuration is recommended yet" if shown is None else "only the task head is trained"
            axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color=_GREY)
            axes.set_axis_off()
        return _svg(figure, id_prefix, "Configuration by layer", heatmap_description(study, shown))


def heatmap_description(study: Study, trial: Trial | None = None) -> str:
    """The heat map in words."""
    shown = trial or StudyResult.of(study).recommended
    if shown is None:
        return "No configuration is recommended yet."
    layers = layer_count(study)
    return printable(
        f"Heat map of trial {shown.number} over {layers} layers: {shown.configuration.describe()}. "
        "Rows are module types and parts, columns are layers, cells are sizes."
    )


def measured(study: Study, kind: TrialKind) -> list[Trial]:
    """Completed trials of a kind that have the first objective."""
    metric = study.spec.objectives[0].name
    return [item for item in study.of_kind(kind, state=TrialState.COMPLETE) if item.value(metric) is not None]


def _point(trial: Trial, metric: str) -> str:
    value, count = format_score(trial.value(metric)), format_count(trial.draft.trainable_parameters)
    return f"trial {trial.number} ({display_name(trial)}), {metric} {value}, {count} parameters"


@contextmanager
def _style(id_prefix: str) -> Iterator[None]:
    """Settings of matplotlib for one figure; its ids depend on the prefix alone: equal input, equal output."""
    import matplotlib as mpl

    with mpl.rc_context({**_STYLE, "svg.hashsalt": id_prefix}), warnings.catch_warnings():
        # Text is drawn by whoever shows the picture, with fonts of their own; here it is only measured.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    # Figure without pyplot: no global state, no display needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


class _ParameterPlace:
    """Where a parameter count stands on the logarithmic axis; none at all (head only) stands left of the smallest."""

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def __call__(self, trial: Trial) -> float:
        return max(float(trial.draft.trainable_parameters), self.floor)


def _parameter_axis(axes: Axes, study: Study, trials: Sequence[Trial]) -> _ParameterPlace:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    counts = [item.draft.trainable_parameters for item in trials]
    positive = [count for count in (*counts, study.spec.budget) if count > 0] or [1]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    has_zero = any(count == 0 for count in counts)
    floor = 10 ** (math.floor(low) - 0.5) if has_zero else 10 ** (low - 0.25)
    axes.set_xscale("log")
    axes.set_xlim(floor / 1.6 if has_zero else floor, 10 ** (high + 0.35))
    ticks = [
        10.0**power for power in range(math.floor(low) if has_zero else math.ceil(low - 0.25), math.ceil(high) + 1)
    ]
    ticks = [tick for tick in ticks if tick <= 10 ** (high + 0.35)]
    axes.xaxis.set_major_locator(FixedLocator([floor, *ticks] if has_zero else ticks))
    axes.xaxis.set_minor_locator(NullLocator())

    def label(value: float, _position: int) -> str:
        return "0" if has_zero and value == floor else format_short_count(value)

    axes.xaxis.set_major_formatter(FuncFormatter(label))
    return _ParameterPlace(floor if has_zero else 0.0)


def _scatter(
    axes: Axes,
    place: _ParameterPlace,
    metric: str,
    trials: Sequence[Trial],
    marker: str,
    color: str,
    label: str,
    *,
    size: float,
    alpha: float = 1.0,
    edge: str = "white",
) -> None:
    points = [(place(item), value) for item in trials if (value := item.value(metric)) is not None]
    if points:
        xs, ys = zip(*points, strict=True)
        axes.scatter(
            xs, ys, s=size, marker=marker, c=color, alpha=alpha, edgecolors=edge, linewidths=0.7, label=label, zorder=3
        )


def _front_line(axes: Axes, place: _ParameterPlace, study: Study, result: StudyResult) -> None:
    """The edge of the region that the front dominates; drawn for the plain case of quality against parameters only."""
    objectives = study.spec.objectives
    if [item.name for item in objectives[1:]] != ["trainable_parameters"]:
        return
    if objectives[0].direction is not Direction.MAXIMIZE:
        return
    points = sorted((place(item), item.value(objectives[0].name) or 0.0) for item in result.front.trials)
    if len(points) > 1:
        xs, ys = zip(*points, strict=True)
        axes.step(xs, ys, where="post", color=_BLUE, linewidth=1.4, zorder=2)


def _best_per_method(study: Study, baselines: Sequence[Trial]) -> list[tuple[str, Trial]]:
    """One (name, trial) per baseline method: the learning rates of one method share its name."""
    metric = study.spec.objectives[0]
    sign = 1.0 if metric.direction is Direction.MAXIMIZE else -1.0
    best: dict[str, Trial] = {}
    for item in baselines:
        name = (item.draft.label or f"trial {item.number}").split(", lr ")[0]
        if name not in best or sign * (item.value(metric.name) or 0.0) > sign * (best[name].value(metric.name) or 0.0):
            best[name] = item
    return list(best.items())


def _name_baselines(
    figure: Figure,
    axes: Axes,
    place: _ParameterPlace,
    metric: str,
    named: Sequence[tuple[str, Trial]],
    obstacles: Sequence[Trial],
) -> None:
    """Write each name beside its point, on the first side where it covers no other name and no point."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    taken: list[Bbox] = []
    for trial in [*obstacles, *(item for _, item in named)]:
        x, y = axes.transData.transform((place(trial), trial.value(metric) or 0.0))
        taken.append(Bbox.from_extents(x - 4, y - 4, x + 4, y + 4))
    inside = axes.get_window_extent()
    sides = [(8, 0, "left", "center"), (-8, 0, "right", "center"), (0, 8, "center", "bottom"), (0, -8, "center", "top")]
    sides += [(6, 9, "left", "bottom"), (6, -9, "left", "top"), (-6, 9, "right", "bottom"), (-6, -9, "right", "top")]
    for name, trial in sorted(named, key=lambda item: -(item[1].value(metric) or 0.0)):
        for dx, dy, horizontal, vertical in sides:
            note = axes.annotate(
                printable(name),
                (place(trial), trial.value(metric) or 0.0),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=8.5,
                color=_ORANGE,
            )
            note.set_in_layout(False)
            box = note.get_window_extent()
            if inside.x0 <= box.x0 and box.x1 <= inside.x1 + 8 and not any(box.overlaps(other) for other in taken):
                break
            note.remove()
        else:
            continue  # no room: the table has the name
        taken.append(box)


def _draw_grid(axes: Axes, grid: Grid) -> None:
    """Cells shaded by size within their row, each with its size written in it."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colors = colormaps["cividis"].reversed()
    for i, row in enumerate(grid.sizes):
        sizes = [size for size in row if isinstance(size, int)]
        for j, size in enumerate(row):
            face: Any = "#F4F4F4"
            ink = _BLACK
            if size is not None:
                share = 0.6 if size == PRESENT else 0.25 + 0.75 * math.log1p(int(size)) / math.log1p(max(sizes))
                red, green, blue, _ = colors(share)
                face = (red, green, blue)
                ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else _BLACK
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
            axes.text(j, i, "" if size is None else str(size), ha="center", va="center", color=ink, fontsize=9)
    axes.set_xlim(-0.5, len(grid.columns) - 0.5)
    axes.set_ylim(len(grid.rows) - 0.5, -0.5)
    axes.set_xticks(range(len(grid.columns)), [("emb." if name == "embedding" else name) for name in grid.columns])
    axes.set_yticks(range(len(grid.rows)), [printable(name) for name in grid.rows])
    axes.tick_params(length=0)
    axes.set_xlabel("layer")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _svg(figure: Figure, id_prefix: str, title: str, description: str) -> str:
    """The figure as an element that can stand in a page: own ids, title and description, no prolog, no metadata."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{id_prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{id_prefix}-", text)
    start, rest = text.split(">", 1)
    names = f'role="img" aria-labelledby="{id_prefix}-title {id_prefix}-description"'
    return (
        f'{start} {names}>\n <title id="{id_prefix}-title">{escape(title)}</title>\n'
        f' <desc id="{id_prefix}-description">{escape(description)}</desc>{rest}'
    )
