"""What a search starts from: chosen once, stored, refused by name where it cannot be had."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.exceptions import NotFoundError, StudyMismatchError, UsageError
from autopeft.orchestrate import LocalExecutor, SearchLoop, SilentProgress, begin_study
from autopeft.orchestrate._warm_start import WarmStart, find_warm_start, stored_warm_start
from autopeft.samplers import EarlierStudy
from autopeft.store import MemoryStore, SqlStore, TrialStore, archive_study
from autopeft.study import Study, StudySpec, TrialKind
from tests.orchestrate.toys import ToyRunner, prepared_search

PREPARED = prepared_search(sampler="bayesian", confirm_top=0)
SPACE = PREPARED.space


def spec(name: str = "new", **changes: object) -> StudySpec:
    backbone = {"name": "minilm", "parameters": SPACE.shapes.parameters, "n_layers": SPACE.shapes.n_layers}
    return replace(PREPARED.spec, **{"name": name, "backbone": backbone, "sampler": "bayesian", **changes})


def search(store: TrialStore, name: str, *, trials: int = 8, **changes: object) -> Study:
    """Run a search without training."""
    settings = replace(PREPARED.settings, trials=trials)
    prepared = replace(PREPARED, settings=settings, spec=spec(name, **{"sampler": "random", **changes}))
    store.ensure_study(prepared.spec)
    executor = LocalExecutor(store, ToyRunner(), SilentProgress(), cohort=1)  # type: ignore[arg-type]
    return SearchLoop(prepared, store, executor, SilentProgress()).run().study


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """Studies a, b and c on this backbone, the latest last; one on another; one empty; one too short."""
    found = MemoryStore()
    other = {"name": "large", "parameters": 10 * SPACE.shapes.parameters, "n_layers": 12}
    search(found, "elsewhere", backbone=other)
    for name in ("task-a", "task-b", "task-c"):
        search(found, name, seed=len(name))
    search(found, "short", trials=3)
    found.create_study(spec("empty"))
    return found


def names(found: WarmStart) -> list[str]:
    return [item.name for item in found.sources]


def test_auto_takes_what_can_teach_the_most_alike_first(store: MemoryStore) -> None:
    assert names(find_warm_start("auto", store, spec(), SPACE)) == ["task-c", "task-b", "task-a", "elsewhere"]


def test_auto_never_takes_the_study_itself(store: MemoryStore) -> None:
    assert "task-b" not in names(find_warm_start("auto", store, spec("task-b"), SPACE))


def test_auto_takes_five_at_most() -> None:
    found = MemoryStore()
    for i in range(7):
        search(found, f"task-{i}", seed=i)
    assert names(find_warm_start("auto", found, spec(), SPACE)) == [f"task-{i}" for i in (6, 5, 4, 3, 2)]


@pytest.mark.parametrize("given", [None, MemoryStore()])
def test_auto_of_nothing_is_nothing(given: MemoryStore | None) -> None:
    found = find_warm_start("auto", given, spec(), SPACE)
    assert found.sources == ()
    assert found.describe() == "none"


def test_auto_is_nothing_for_a_sampler_that_cannot_learn(store: MemoryStore) -> None:
    assert find_warm_start("auto", store, spec(sampler="tpe"), SPACE).sources == ()


def test_none_is_none(store: MemoryStore) -> None:
    assert find_warm_start("none", store, spec(), SPACE).sources == ()


def test_a_study_by_name_or_beginning(store: MemoryStore) -> None:
    for asked in ("task-b", "else"):
        [found] = find_warm_start(asked, store, spec(), SPACE).sources
        assert found == EarlierStudy.of(store.load_study("task-b" if asked == "task-b" else "elsewhere"))


def test_a_file(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(archive_study(store.load_study("task-a"))))
    [found] = find_warm_start(str(path), None, spec(), SPACE).sources
    assert found == EarlierStudy.of(store.load_study("task-a"))


@pytest.mark.parametrize(
    ("asked", "error", "problem"),
    [
        ("task-x", NotFoundError, "no study and no file of that name. Did you mean task-"),
        ("zzz", NotFoundError, "See `autopeft status --all`"),
        ("task", NotFoundError, "is not unique: it could be task-a, task-b, task-c"),
        ("empty", UsageError, "study empty has 0 measured trials to learn from, 6 are needed"),
        ("short", UsageError, "study short has 3 measured trials"),
        ("no.json", UsageError, "no.json cannot be read: No such file"),
    ],
)
def test_what_cannot_be_had_is_named(store: MemoryStore, asked: str, error: type[Exception], problem: str) -> None:
    with pytest.raises(error) as caught:
        find_warm_start(asked, store, spec(), SPACE)
    assert problem in str(caught.value)


def test_a_study_cannot_start_from_itself(store: MemoryStore) -> None:
    with pytest.raises(UsageError, match="study task-a cannot start from itself"):
        find_warm_start("task-a", store, spec("task-a"), SPACE)


def test_a_sampler_that_cannot_learn_refuses_a_named_study(store: MemoryStore) -> None:
    with pytest.raises(UsageError, match=r"sampler random learns nothing from earlier studies.*--sampler bayesian"):
        find_warm_start("task-a", store, spec(sampler="random"), SPACE)


def test_a_study_whose_types_are_not_searched_here_is_refused(store: MemoryStore) -> None:
    from autopeft.configuration import BoundSpace, parse_search_space
    from autopeft.modules import MODULES

    text = {
        "name": "only-prefix",
        "description": "Prefixes alone.",
        "parameters": {"length": {"type": "int", "low": 1, "high": 8}},
        "modules": {"prefix": {"size": "length", "parts": ["attention"]}},
        "layers": "all",
        "learning_rate": 0.001,
        "budget": "scale",
    }
    space = BoundSpace(
        space=parse_search_space(text, MODULES), shapes=SPACE.shapes, module_types=MODULES, budget=SPACE.budget
    )
    with pytest.raises(UsageError, match=r"of the 8 trials of study task-a, \d can be said in search space only-pref"):
        find_warm_start("task-a", store, spec(), space)


def test_what_a_study_begins_with_is_stored_and_stays(store: MemoryStore, tmp_path: Path) -> None:
    """Earlier studies go on, new ones come: the study keeps what it began with, in whatever store."""
    file = SqlStore(tmp_path / "x.db")
    search(file, "task-a")
    begun = stored_warm_start(begin_study("auto", file, spec(), SPACE))
    assert begun is not None
    assert names(begun) == ["task-a"]
    search(file, "task-a", trials=12)
    search(file, "task-b")
    for asked in ("auto", "auto"):
        assert stored_warm_start(begin_study(asked, file, spec(), SPACE)) == begun
    assert len(begun.sources[0].trials) == 8
    file.close()


def test_another_warm_start_on_resuming_is_refused(store: MemoryStore) -> None:
    mine = MemoryStore()
    search(mine, "task-a")
    begin_study("task-a", mine, spec(), SPACE)
    begin_study("task-a", mine, spec(), SPACE)
    with pytest.raises(StudyMismatchError, match=r"begun with warm start task-a \(task-a .*\), not none; leave"):
        begin_study("none", mine, spec(), SPACE)
    with pytest.raises(StudyMismatchError, match="not other"):
        begin_study("other", mine, spec(), SPACE)


def test_none_on_resuming_what_began_with_nothing_is_fine() -> None:
    mine = MemoryStore()
    begin_study("auto", mine, spec(), SPACE)
    begin_study("none", mine, spec(), SPACE)


def test_a_wrong_warm_start_leaves_no_study_behind(store: MemoryStore) -> None:
    mine = MemoryStore()
    with pytest.raises(NotFoundError):
        begin_study("nothing", mine, spec(), SPACE)
    assert mine.list_studies() == []


def test_a_study_from_before_there_were_warm_starts_stays_cold() -> None:
    mine = MemoryStore()
    search(mine, "task-a")
    search(mine, "old", sampler="bayesian", trials=2)
    begun = stored_warm_start(begin_study("auto", mine, spec("old"), SPACE))
    assert begun is not None
    assert begun.sources == ()


def test_a_newer_warm_start_is_refused() -> None:
    mine = MemoryStore()
    mine.create_study(spec())
    mine.set_attribute("new", "warm_start", {"schema_version": 2})
    with pytest.raises(StudyMismatchError, match="schema version 2, but this autopeft reads version 1"):
        begin_study("auto", mine, spec(), SPACE)


def test_a_search_uses_what_it_was_begun_with_and_a_killed_one_goes_on_the_same() -> None:
    """Ten trials in one go, and in two halves between which the earlier study has changed."""
    runs = []
    for halves in ((10,), (5, 10)):
        mine = MemoryStore()
        search(mine, "task-a", trials=20)
        begin_study("auto", mine, spec(), SPACE)
        for trials in halves:
            found = search(mine, "new", sampler="bayesian", trials=trials)
            search(mine, "task-a", trials=22)
        runs.append(found.of_kind(TrialKind.SEARCH))
    assert [item.draft.params for item in runs[0]] == [item.draft.params for item in runs[1]]
    assert runs[0][0].notes["suggestion"]["why"] == "good in the earlier study task-a"
