"""What all figures share: colors that every color vision tells apart, names with units, text that stays text."""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go

from autopeft.export import format_count, format_value, printable
from autopeft.objectives import Objective

#: Okabe and Ito's colors (https://jfly.uni-koeln.de/color/); each kind of point has a symbol of its own as well.
BLUE, ORANGE, GREEN, SKY, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#8C8C8C"
#: Readable on white and on black.
NEUTRAL = "#808080"

_NAMES = {
    "trainable_parameters": "trainable parameters",
    "wall_time_s": "training time",
    "peak_memory_bytes": "peak memory",
    "examples_per_s": "training speed",
    "tokens_per_s": "training speed in tokens",
}


def plain(text: str) -> str:
    """Text of a study as Plotly shows it letter by letter: Plotly takes a few HTML tags for markup."""
    return escape(printable(text), quote=False)


def readable(name: str) -> str:
    """A value's name for people."""
    return _NAMES.get(name, name.removesuffix("_s").removesuffix("_bytes").replace("_", " "))


def axis_title(item: Objective, *, has_direction: bool = True) -> str:
    """A value's name with its unit and, if that is known, the way that is better."""
    unit = f" ({item.unit})" if item.unit and item.unit != "parameters" else ""
    better = ", more is better" if item.sign > 0 else ", less is better"
    return plain(f"{readable(item.name)}{unit}{better if has_direction else ''}")


def shown(value: float | None, item: Objective) -> str:
    """A value with its unit; a dash if it is missing."""
    # Operations and speeds have no use for a tenth of a thousand.
    is_large = value is not None and abs(value) >= 1000 and item.unit not in ("s", "bytes")
    text = format_count(value) if is_large else format_value(value, item.unit)
    if not text:
        return "not measured"
    unit = f" {item.unit}" if item.unit and item.unit not in ("parameters", "s", "bytes") else ""
    return plain(text + unit)


def rounded(value: float) -> str:
    """A number of any size in four significant digits or thousands, never with an exponent of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def finish(figure: go.Figure, *, height: int, legend: bool = True) -> go.Figure:
    """Margins, legend and fonts; colors of text and background are the page's own, light or dark."""
    figure.update_layout(
        height=height,
        # The tools above the picture need a place of their own.
        margin={"l": 8, "r": 8, "t": 30, "b": 8},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": BLUE},
        showlegend=legend,
        legend={"orientation": "h", "y": -0.18, "x": 0, "yanchor": "top", "title": None},
        hoverlabel={"align": "left", "namelength": -1},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        # Keeps zoom and legend choices while new trials arrive.
        uirevision="kept",
    )
    figure.update_xaxes(automargin=True, zeroline=False, gridcolor="rgba(128,128,128,0.2)")
    figure.update_yaxes(automargin=True, zeroline=False, gridcolor="rgba(128,128,128,0.2)")
    return figure


def empty_figure(reason: str, *, height: int = 160) -> go.Figure:
    """A figure that says why there is nothing to see."""
    figure = go.Figure()
    figure.add_annotation(text=plain(reason), showarrow=False, font={"size": 15, "color": NEUTRAL})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return finish(figure, height=height, legend=False)


def sample_figure() -> go.Figure:
    """A picture of nothing with a bit of everything: a browser that has drawn it draws the next one at once."""
    # So many points that the browser compiles what draws them.
    many = {"x": list(range(500)), "y": [1] * 500, "customdata": list(range(500)), "mode": "markers"}
    figure = go.Figure(
        [
            go.Scatter(**many, name="crowd", marker={"symbol": "circle-open"}, hovertemplate="%{x}"),
            go.Scatter(**many, name="others", marker={"symbol": "triangle-down-open"}, hovertemplate="%{x}"),
            go.Scatter(x=[1, 2], y=[1, 2], mode="markers", name="points", error_y={"array": [1, 1]}),
            go.Scatter(x=[1, 2], y=[2, 1], mode="lines+text", name="lines", text=["a", "b"]),
        ]
    )
    figure.add_vline(x=1, annotation_text="here")
    figure.update_xaxes(title={"text": "across"})
    figure.update_yaxes(title={"text": "up"})
    return finish(figure, height=300)
