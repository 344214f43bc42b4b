from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopeft import orchestrate
from autopeft import store as store_package
from autopeft.cli._search import _settings, read_settings
from autopeft.exceptions import NotFoundError, UsageError
from autopeft.orchestrate import Plan, SearchResult, SearchSettings
from autopeft.store import SqlStore, TrialStore
from tests.cli.conftest import Cli
from tests.export.studies import full_study
from tests.study.builders import make_spec

Search = Callable[..., SearchResult]


def make_plan(*_: object, n_done: int = 0, store_url: str = "", **__: object) -> Plan:
    return Plan(
        spec=make_spec(),
        task_description="toy texts",
        n_parameters_active=12,
        n_trials=24,
        n_baselines=6,
        n_confirmations=18,
        n_done=n_done,
        seconds_per_trial=4.0,
        estimated_time_s=180.0,
        export_notes=("lora: a plain LoRA adapter",),
        store_url=store_url,
        resume_command="autopeft search --task toy",
    )


@pytest.fixture
def replace_search(monkeypatch: pytest.MonkeyPatch) -> Callable[[Search], None]:
    """Put something quick in the place of preparing and running a search; everything around it is real."""

    def put(search: Search) -> None:
        prepared = SimpleNamespace(spec=make_spec(), space=None)
        monkeypatch.setattr(orchestrate, "prepare", lambda _: prepared)
        monkeypatch.setattr(orchestrate, "run_search", search)

    return put


def replace_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan a search of nothing; everything around it is real."""
    monkeypatch.setattr(orchestrate, "prepare", lambda _: SimpleNamespace(spec=make_spec(), space=None))
    monkeypatch.setattr(orchestrate, "load_runner", lambda *_, **__: None)
    monkeypatch.setattr(orchestrate, "planned_baselines", lambda _: [])
    monkeypatch.setattr(orchestrate, "make_plan", make_plan)


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("task: toy\nbudget: 2%\ntrials: 7\ndata-dir: from-file\n")
    settings = _settings(path, {"task": None, "budget": None, "trials": 9, "objectives": [], "data_dir": None})
    assert settings == SearchSettings(task="toy", budget="2%", trials=9, data_dir=Path("from-file"))
    monkeypatch.setenv("AUTOPEFT_DATA_DIR", "from-environment")
    assert _settings(path, {"data_dir": None}).data_dir == Path("from-environment")
    assert _settings(path, {"data_dir": Path("from-flag")}).data_dir == Path("from-flag")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("a: [", "line 1, column 5"),
        ("- a\n- b\n", "must hold settings .* but got list"),
        (b"\xff\xfe\x00", "is not UTF-8 at byte 0"),
        ("task: a\ntask: b\n", "task: stands twice, in lines 1 and 2"),
        ("task: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("task: " + "[" * 5000, "nested more than 50 levels"),
        ("#" * 1_000_001, "larger than 1,000,000 bytes"),
    ],
)
def test_a_bad_settings_file_says_what_is_wrong(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    path = tmp_path / "search.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        read_settings(path)


def test_a_file_that_would_unfold_into_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    """Nine levels of nine aliases each are a billion texts."""
    levels = [f"{chr(97 + i)}: &{chr(97 + i)} [{', '.join([f'*{chr(96 + i)}'] * 9)}]" for i in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("a: &a [lol, lol, lol]\n" + "\n".join(levels) + "\n")
    start = time.perf_counter()
    with pytest.raises(UsageError, match=r"aliases \(\*name\) are not supported"):
        read_settings(path)
    assert time.perf_counter() - start < 2


def test_an_endless_settings_file_is_not_read_to_its_end() -> None:
    with pytest.raises(UsageError, match="larger than"):
        read_settings(Path("/dev/zero"))


def test_an_empty_settings_file_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("# nothing yet\n")
    assert read_settings(path) == {}


def test_no_task_and_unknown_keys_are_exit_code_2(cli: Cli, tmp_path: Path) -> None:
    ran = cli("search")
    assert ran.code == 2
    assert "no task given" in ran.err
    path = tmp_path / "search.yaml"
    path.write_text("task: toy\nbugdet: 1%\n")
    ran = cli("search", "--config", str(path))
    assert ran.code == 2
    assert "unknown setting 'bugdet'. Did you mean budget" in ran.err


def test_the_end_shows_the_front_and_names_the_next_commands(
    cli: Cli, tmp_path: Path, replace_search: Callable[[Search], None]
) -> None:
    study = full_study()
    seen: dict[str, Any] = {}

    def search(prepared: Any, store: TrialStore, progress: orchestrate.Progress, **given: Any) -> SearchResult:
        seen.update(given, attributes=store.load_study(prepared.spec.name).attributes)
        progress.plan(make_plan())
        progress.trial_finished(study.trials[3], study.trials[3])
        return SearchResult(study=study, summary={}, stopped_early="the time limit ended the search")

    replace_search(search)
    db = tmp_path / "x.db"
    ran = cli("search", "--task", "toy", "--budget", "5%", "--db", str(db), "--format", "json")
    assert ran.code == 0
    data = json.loads(ran.out)
    assert data["stopped_early"] == "the time limit ended the search"
    assert len(data["baselines"]) == 6
    assert "trial 3 (baseline): accuracy 0.6100" in ran.err
    assert f"Stored as study study in sqlite:///{db}" in ran.err
    for command in ("front study", "report study -o report.html"):
        assert f"autopeft {command} --db {db}" in ran.err
    assert seen["attributes"]["command"] == f"autopeft search --task toy --budget 5% --db {db}"
    assert seen["cache_dir"] == tmp_path / "autopeft-home" / "cache"
    quiet = cli("search", "--task", "toy", "--db", str(db), "--quiet")
    assert quiet.err == ""
    assert study.attributes["summary"]["headline"] in quiet.out


def test_interrupting_is_exit_code_130_with_the_resume_command(
    cli: Cli, tmp_path: Path, replace_search: Callable[[Search], None]
) -> None:
    def search(*_: object, **__: object) -> SearchResult:
        raise KeyboardInterrupt

    replace_search(search)
    ran = cli("search", "--task", "toy", "--db", str(tmp_path / "x.db"))
    assert ran.code == 130
    assert ran.out == ""
    assert f"autopeft search --task toy --budget 1% --db {tmp_path / 'x.db'}" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["prepare", "open_store", "ensure_study", "run_search"])
def test_any_moment_can_be_interrupted(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replace_search: Callable[[Search], None],
    moment: str,
    number: signal.Signals,
) -> None:
    def interrupt(*_: object, **__: object) -> Any:
        signal.raise_signal(number)
        raise AssertionError("the signal did not interrupt")

    replace_search(interrupt)
    owner = {"open_store": store_package, "ensure_study": SqlStore}.get(moment, orchestrate)
    monkeypatch.setattr(owner, moment, interrupt)
    # A SIGTERM that nobody caught would end the tests themselves.
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        ran = cli("search", "--task", "toy", "--trials", "3", "--db", str(tmp_path / "x.db"))
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert (ran.code, ran.out) == (130, "")
    assert f"autopeft search --task toy --budget 1% --trials 3 --db {tmp_path / 'x.db'}" in ran.err
    assert "Traceback" not in ran.err


def test_an_interrupt_while_the_libraries_load_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> SearchSettings:
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchSettings, "make", interrupt)
    ran = cli("search", "--task", "toy")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == "Interrupted before the search began; the same command starts it.\n"


def test_a_password_is_shown_nowhere_and_how_to_do_without_is_said(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace_search: Callable[[Search], None]
) -> None:
    url = "postgresql://me:s3cret@host/db"
    path = tmp_path / "x.db"
    monkeypatch.setattr(store_package, "open_store", lambda _, **__: SqlStore(path))

    def search(_: Any, store: TrialStore, progress: orchestrate.Progress, **given: Any) -> SearchResult:
        assert given["command_extra"] == ()
        progress.plan(make_plan(store_url=store.url))
        if interrupted:
            raise KeyboardInterrupt
        return SearchResult(study=full_study(), summary={}, stopped_early=None)

    replace_search(search)
    for interrupted in (False, True):
        ran = cli("search", "--task", "toy", "--db", url)
        assert ran.code == (130 if interrupted else 0)
        assert "s3cret" not in ran.err
        assert "--db" not in ran.err
        # Before the search, should it be killed, and beside the commands at its end.
        assert ran.err.count("first set AUTOPEFT_DB to the URL") == 2
    with SqlStore(path) as store:
        assert store.load_study("study").attributes["command"] == "autopeft search --task toy --budget 1%"
    replace_planning(monkeypatch)
    ran = cli("plan", "--task", "toy", "--db", url)
    assert "Resume" in ran.out
    assert "first set AUTOPEFT_DB to the URL" in ran.err
    monkeypatch.setenv("AUTOPEFT_DB", url)
    assert "AUTOPEFT_DB" not in cli("search", "--task", "toy").err


def test_time_that_ends_before_the_first_trial_is_said_with_the_command_to_go_on(
    cli: Cli, tmp_path: Path, replace_search: Callable[[Search], None]
) -> None:
    def search(_: Any, store: TrialStore, *__: object, **___: object) -> SearchResult:
        return SearchResult(study=store.load_study("study"), summary=None, stopped_early="the time limit ended it")

    replace_search(search)
    for quiet in ((), ("--quiet",)):
        ran = cli("search", "--task", "toy", "--time", "1s", "--db", str(tmp_path / "x.db"), *quiet)
        assert ran.code == 0
        assert "No search trial within the budget has been measured yet." in ran.out
        assert "Stopped early: the time limit ended it." in ran.err
        assert f"\n  autopeft search --task toy --budget 1% --time 1 --db {tmp_path / 'x.db'}\n" in ran.err
        assert "autopeft export" not in ran.err


def test_plan_stores_nothing_and_counts_what_is_done(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[..., str]
) -> None:
    replace_planning(monkeypatch)
    missing = tmp_path / "none.db"
    data = json.loads(cli("plan", "--task", "toy", "--db", str(missing), "--format", "json").out)
    assert data["n_done"] == 0
    assert data["spec"]["budget"] == 5000
    assert not missing.exists()
    missing.touch()
    assert json.loads(cli("plan", "--task", "toy", "--db", str(missing), "--format", "json").out)["n_done"] == 0
    with pytest.raises(NotFoundError):  # still without a schema
        SqlStore(missing, create=False)
    db = save(full_study())
    assert "22 done" in cli("plan", "--task", "toy", "--db", db).out
    with_other = SqlStore(db)
    try:
        assert [item.name for item in with_other.list_studies()] == ["study"]
    finally:
        with_other.close()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, (None, 3600.0)), ({"memory_limit_bytes": 2**31, "trial_timeout_s": 90.0}, (2**31, 90.0))],
)
def test_limits_of_a_trial_are_given_to_the_workers_of_ray(
    changes: dict[str, Any], expected: tuple[int | None, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext
    from types import SimpleNamespace

    from autopeft.cli import _search

    given: list[Any] = []

    def ray_pool(_address: str | None, _url: str, settings: Any, **_: Any) -> Any:
        given.append(settings)
        return nullcontext()

    real = _search.workers_module
    fake = SimpleNamespace(ray_pool=ray_pool)
    monkeypatch.setattr(_search, "workers_module", lambda name: fake if name == "pool" else real(name))
    with _search._pool(SearchSettings(task="x", executor="ray", **changes), "sqlite://"):
        pass
    assert [(item.memory_limit_bytes, item.trial_timeout_s) for item in given] == [expected]
