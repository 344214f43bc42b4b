"""What is remembered between reruns and shared by all visitors: values that depend on the database alone.

Everything is remembered under the study's token, which changes with its trials, so nothing is ever stale; arguments
with an underscore follow from the others. What comes back is shared and must not be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from autopeft.artifacts import open_artifacts
from autopeft.objectives import Objective
from autopeft.store import StudyOverview, StudyReader
from autopeft.study import StudySpec

from .. import queries

T = TypeVar("T")

#: Words of configurations by fingerprint: they are functions of the configuration, so they never change.
_WORDS: dict[str, str] = {}
_MAX_WORDS = 50_000


@st.cache_resource(show_spinner=False)
def open_reader(url: str) -> StudyReader:
    """The one reader of a database; it opens connections when it is asked something."""
    return StudyReader(url)


@st.cache_resource(max_entries=24, show_spinner=False)
def trials(url: str, study: str, token: str, names: tuple[str, ...], _spec: StudySpec) -> pd.DataFrame:
    """`queries.trials_frame` with roles."""
    return queries.add_roles(queries.trials_frame(open_reader(url), study, names), _spec)


@st.cache_resource(max_entries=200, show_spinner=False)
def facts(url: str, study: str, token: str, _overview: StudyOverview) -> Mapping[str, object]:
    """`queries.study_facts`."""
    return queries.study_facts(open_reader(url), _overview)


@st.cache_resource(max_entries=50, show_spinner=False)
def attributes(url: str, study: str, token: str) -> dict[str, Any]:
    """A study's attributes."""
    return open_reader(url).attributes(study)


@st.cache_resource(max_entries=50, show_spinner=False)
def axes(url: str, study: str, token: str, _spec: StudySpec) -> tuple[Objective, ...]:
    """`queries.value_names`."""
    return queries.value_names(open_reader(url), study, _spec)


@st.cache_resource(max_entries=50, show_spinner=False)
def result(url: str, study: str, token: str, _spec: StudySpec) -> queries.Result:
    """`queries.result_of`."""
    frame = trials(url, study, token, objective_names(_spec), _spec)
    return queries.result_of(frame, _spec, attributes(url, study, token))


@st.cache_resource(max_entries=100, show_spinner=False)
def growth(
    url: str, study: str, token: str, _spec: StudySpec, reference: tuple[float, ...] | None = None
) -> pd.DataFrame:
    """`queries.hypervolume_frame`."""
    frame = trials(url, study, token, objective_names(_spec), _spec)
    return queries.hypervolume_frame(frame, _spec, reference=reference)


@st.cache_resource(max_entries=24, show_spinner=False)
def surrogate(url: str, study: str, token: str, name: str, _frame: pd.DataFrame) -> queries.SurrogateFacts:
    """`queries.surrogate_facts`."""
    return queries.surrogate_facts(open_reader(url), study, _frame, name)


@st.cache_resource(max_entries=24, show_spinner=False)
def fidelity(url: str, study: str, token: str, name: str, _frame: pd.DataFrame, _objective: Objective) -> pd.DataFrame:
    """`queries.fidelity_frame`."""
    return queries.fidelity_frame(open_reader(url), study, _frame, _objective)


@st.cache_resource(max_entries=100, show_spinner=False)
def kept(url: str, study: str, token: str, what: tuple[object, ...], _make: Callable[[], T]) -> T:
    """Whatever a function makes of a study: a picture with its words, say.

    Args:
        url: Database.
        study: Study.
        token: Its token.
        what: Names what is made; everything that it depends on beside the study.
        _make: Makes it.
    """
    return _make()


def rivals(
    url: str, overview: StudyOverview, others: Collection[StudyOverview], frame: pd.DataFrame, over: str
) -> pd.DataFrame:
    """`queries.rival_band` of the random searches that stand in the same database."""
    reference = queries.reference_values(frame, overview.spec)
    found = [item for item in others if queries.is_rival(overview.spec, item.spec)]
    if reference is None:
        found = []
    curves = [growth(url, item.name, item.token, item.spec, reference) for item in found]
    return queries.rival_band(curves, over=over)


def words(url: str, study: str, frame: pd.DataFrame, numbers: Collection[int]) -> dict[int, str]:
    """Configurations in words, by number."""
    rows = frame[frame["number"].isin(list(numbers))]
    prints = dict(zip(rows["number"], rows["fingerprint"], strict=True))
    missing = [number for number, fingerprint in prints.items() if fingerprint not in _WORDS]
    if missing:
        if len(_WORDS) > _MAX_WORDS:
            _WORDS.clear()
        found = open_reader(url).configurations(study, missing)
        _WORDS.update({prints[number]: configuration.describe() for number, configuration in found.items()})
    return {number: _WORDS[fingerprint] for number, fingerprint in prints.items() if fingerprint in _WORDS}


@st.cache_data(ttl=60, max_entries=200, show_spinner="Looking for stored adapters ...")
def stored_adapters(place: str, study: str, number: int) -> list[queries.StoredAdapter]:
    """`queries.stored_adapters`; remembered for a minute, because no token tells of files."""
    return queries.stored_adapters(open_artifacts(place), study, number)


def objective_names(spec: StudySpec) -> tuple[str, ...]:
    """The names that every page asks for, so that they share one frame."""
    constraints = [item.name for item in queries.constraints_of(spec)]
    return tuple(dict.fromkeys([*(item.name for item in spec.objectives), *constraints]))
