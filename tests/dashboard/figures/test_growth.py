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
    rivals = rival_band([growth.assign(hypervolume=growth["hypervolume"] / 2)])
    figure = hypervolume_figure(growth, rivals, over="n_trials", unit="accuracy x parameters")
    assert list(traces(figure)) == ["random search (median, range)", "this search"]
    assert list(traces(figure)["this search"].y) == growth["hypervolume"].tolist()  # type: ignore[attr-defined]
    timed = hypervolume_figure(growth, rivals, over="hours", unit="u")
    assert list(traces(timed)) == ["this search"]
    assert timed.layout.xaxis.title.text == "time since the first trial (min)"
    words = hypervolume_words(growth, rivals)
    assert "after 6 search trials" in words
    assert "Random search covered" in words
    assert "No search trial" in hypervolume_words(growth.iloc[:0], rivals)
    assert hypervolume_figure(growth.iloc[:0], rivals, over="hours", unit="u").layout.annotations
