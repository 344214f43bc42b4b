from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import pytest

from autopeft.store import StudyReader
from dashboard.figures import hypervolume_figure, hypervolume_words
from dashboard.queries import add_roles, hypervolume_frame, rival_band, trials_frame
from tests.dashboard.studies import spec


@pytest.fixture(scope="module")
def frame(full_url: str) -> pd.DataFrame:
    with StudyReader(full_url) as reader:
        return add_roles(trials_frame(reader, "study", ["accuracy"]), spec())


def traces(figure: go.Figure) -> dict[str, object]:
    return {trace.name: trace for trace in figure.data if trace.name}


def test_growth(frame: pd.DataFrame) -> None:
    growth = hypervolume_frame(frame, spec())
    half = growth.assign(hypervolume=growth["hypervolume"] / 2)
    rivals = rival_band([half])
    figure = hypervolume_figure(growth, rivals, over="n_trials", unit="accuracy x parameters")
    assert list(traces(figure)) == ["random search (median, range)", "this search"]
    assert list(traces(figure)["this search"].y) == growth["hypervolume"].tolist()  # type: ignore[attr-defined]
    band = rival_band([half, half * 2], over="hours")
    timed = hypervolume_figure(growth, band, over="hours", unit="u")
    assert list(traces(timed)) == ["random search (median, range)", "this search"]
    assert list(traces(timed)["random search (median, range)"].x) == pytest.approx((60 * band["hours"]).tolist())  # type: ignore[attr-defined]
    assert timed.layout.xaxis.title.text == "time since the first search trial (min)"


def test_growth_in_words(frame: pd.DataFrame) -> None:
    """Oracle: the fixture's last member of the front is trial 5, its fourth measured one of six."""
    growth = hypervolume_frame(frame, spec())
    half = growth.assign(hypervolume=growth["hypervolume"] / 2)
    final = growth["hypervolume"].iloc[-1]
    words = hypervolume_words(growth, rival_band([half]))
    assert f"covers {final:,.0f} after 6 search trials; it last grew with trial 5, after 4 search trials." in words
    assert f"Random search covered {final / 2:,.0f} after 6 search trials, this one {final:,.0f}." in words
    slow = rival_band([half.assign(hours=2 * growth["hours"])], over="hours")
    assert f"Random search covered {slow['middle'][slow['hours'] <= growth['hours'].iloc[-1]].iloc[-1]:,.0f}" in (
        hypervolume_words(growth, slow, over="hours")
    )
    none = growth.iloc[:0]
    assert "No search trial" in hypervolume_words(none, rival_band([half]))
    assert hypervolume_figure(none, rival_band([half]), over="hours", unit="u").layout.annotations


def test_a_long_staircase_is_drawn_by_its_steps() -> None:
    """Oracle: the value that each trial found, read off the staircase that is drawn."""
    volumes = [float(i // 100) for i in range(950)]
    growth = pd.DataFrame(
        {"n_trials": range(1, 951), "hours": [i / 60 for i in range(950)], "number": range(950), "hypervolume": volumes}
    )
    line = hypervolume_figure(growth, rival_band([]), over="n_trials", unit="u").data[0]
    assert list(line.x) == [1, 101, 201, 301, 401, 501, 601, 701, 801, 901, 950]
    assert line.line.shape == "hv"
    for n, volume in zip(growth["n_trials"], volumes, strict=True):
        assert [y for x, y in zip(line.x, line.y, strict=True) if x <= n][-1] == volume
