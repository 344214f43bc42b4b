"""Every page in every state that a database can be in: never a traceback, always a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

from autopeft.artifacts import open_artifacts
from autopeft.store import WorkerFacts, open_store
from autopeft.store._models import StudyRow
from autopeft.study import Rung
from tests.dashboard.queries.test_adapters import export
from tests.dashboard.studies import HOSTILE, draft, full, lora, params, run, spec
from tests.ports import free_port
from tests.store.conftest import Cluster, execute

SCRIPT = Path(__file__).parents[2] / "dashboard" / "app.py"
PAGES = ("", "front", "configuration", "trials", "insight", "health", "export")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def open_page(monkeypatch: pytest.MonkeyPatch, url: str, page: str = "", **params: str) -> AppTest:
    """Open a page by its address."""
    monkeypatch.setenv("AUTOPEFT_DB", url)
    app = AppTest.from_file(str(SCRIPT), default_timeout=120)
    if page:
        # Pages are known after the first run; a browser sends the address with it.
        app.run()
        addresses = {info["url_pathname"]: key for key, info in app._registered_pages.items()}
        app._page_hash = addresses[page]
    for key, value in params.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def said(app: AppTest) -> str:
    kinds = (app.info, app.warning, app.error, app.text, app.caption, app.header, app.subheader, app.success)
    return "\n".join(str(item.value) for kind in kinds for item in kind)


def nothing(url: str) -> None:
    pass


def no_study(url: str) -> None:
    open_store(url).list_studies()


def no_trials(url: str) -> None:
    open_store(url).create_study(spec())


def one_trial(url: str) -> None:
    with open_store(url) as store:
        store.create_study(spec())
        run(store, draft(lora(3), 300, params=params(3)), 0.7)


def only_failures(url: str) -> None:
    with open_store(url) as store:
        store.create_study(spec())
        for rank in (1, 2, 3):
            run(store, draft(lora(rank), 300, params=params(rank)), None)


def only_pruned(url: str) -> None:
    with open_store(url) as store:
        store.create_study(spec())
        for rank in (1, 2):
            run(store, draft(lora(rank), 300), 0.5, rung=Rung(step=10, n_steps=40))


def only_waiting(url: str) -> None:
    with open_store(url) as store:
        store.create_study(spec())
        store.add_trial("study", draft(lora(1), 300))


STATES: dict[str, Callable[[str], None]] = {
    "no database": nothing,
    "empty database": no_study,
    "no trials": no_trials,
    "one trial": one_trial,
    "only failures": only_failures,
    "only pruned": only_pruned,
    "only waiting": only_waiting,
    "everything": full,
}


@pytest.mark.parametrize("page", PAGES)
def test_every_state_has_a_page(page: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in STATES.items():
        found = url.replace("studies.db", f"{name}.db")
        make(found)
        app = open_page(monkeypatch, found, page)
        assert said(app).strip(), name
        assert "could not be drawn" not in said(app), name
        if name in ("no database", "empty database"):
            assert "no study" in said(app).lower(), name


@pytest.mark.parametrize("page", PAGES)
def test_a_database_that_goes_away_is_told_and_found_again(
    page: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(url)
    path = Path(url.removeprefix("sqlite:///"))
    app = open_page(monkeypatch, url, page)
    path.rename(path.with_suffix(".away"))
    app.run()
    assert not app.exception
    assert "The database that was here is gone" in said(app)
    path.write_text("no database " * 100)
    app.run()
    assert not app.exception
    assert "cannot be read" in said(app)
    path.unlink()
    path.with_suffix(".away").rename(path)
    app.run()
    assert not app.exception
    assert "cannot be read" not in said(app)
    assert app.selectbox or app.dataframe


def test_a_link_opens_study_and_trial(full_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(monkeypatch, full_url, "front", study="study", trial="5")
    assert "Trial 5" in [item.value for item in app.subheader]
    assert app.query_params["trial"] == "5"


@pytest.mark.parametrize("trial", ["999", "-1", "1e9", "abc", "9" * 40, "<b>1</b>", ""])
def test_a_tampered_trial_is_told(trial: str, full_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(monkeypatch, full_url, "front", study="study", trial=trial)
    assert "a trial that this study does not have" in said(app)
    button = next(item for item in app.button if item.label == "Forget the trial")
    button.click().run()
    assert "does not have" not in said(app)
    assert "trial" not in app.query_params


def test_an_unknown_study_is_told_with_a_way_back(full_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(monkeypatch, full_url, "front", study="studdy")
    assert "Did you mean 'study'" in said(app)
    next(item for item in app.button if "latest activity" in item.label).click().run()
    assert "Did you mean" not in said(app)
    assert app.query_params["study"] == "study"


@pytest.mark.parametrize("page", PAGES)
def test_text_of_a_study_is_never_markup(page: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `st.text`, `st.code` and tables, which show letters, may hold what a study says."""
    full(url, name=HOSTILE)
    app = open_page(monkeypatch, url, page)
    markup = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.header, *app.subheader]
    for item in markup:
        assert "script" not in str(item.value), item
        assert "stars" not in str(item.value), item


def test_schema_of_another_version_says_which_command(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    full(url)
    path = url.removeprefix("sqlite:///")
    for revision, way in (("0001", "autopeft db upgrade"), ("9999", "pip install --upgrade autopeft")):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE autopeft_version SET version_num = ?", [revision])
        connection.close()
        app = open_page(monkeypatch, url, "front")
        assert way in said(app)


@pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "sqlite:///", "nonsense://x"])
def test_a_wrong_url_is_told_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(monkeypatch, url)
    assert "cannot be read" in said(app)
    assert "secret" not in said(app)


@pytest.mark.postgres
def test_a_wrong_password_and_a_server_that_is_not_there(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(monkeypatch, cluster.url(password="guess-me"))
    assert "refused the user or password" in said(app)
    assert "guess-me" not in said(app)
    app = open_page(monkeypatch, f"postgresql://u:guess-me@127.0.0.1:{free_port()}/x")
    assert "cannot be reached" in said(app)
    assert "guess-me" not in said(app)


@pytest.mark.postgres
def test_a_study_on_postgresql(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(cluster.url(), "CREATE DATABASE pages")
    try:
        full(cluster.url("pages"))
        for page in PAGES:
            assert "could not be drawn" not in said(open_page(monkeypatch, cluster.url("pages"), page, study="study"))
    finally:
        execute(cluster.url(), "DROP DATABASE pages WITH (FORCE)")


def test_a_search_at_random_stands_beside_the_search(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full(url, name="random one", sampler="random")
    full(url, name="study", sampler="bayesian")
    assert "Random search covered" in said(open_page(monkeypatch, url, "front", study="study"))
    assert "Random search covered" not in said(open_page(monkeypatch, url, "front", study="random one"))


def test_what_the_pruner_reports_is_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full(url)
    row = {
        "step": 10,
        "share": 0.25,
        "objective": "accuracy",
        "n": 6,
        "tau": 0.5,
        "low": 0.1,
        "high": 0.8,
        "use": "used",
    }
    report = {"n_pruned": 1, "time_saved_s": 90.0, "share_saved": 0.1, "lost": {"n_controls": 2, "n_on_front": 0}}
    open_store(url).set_attribute("study", "pruning", {**report, "correlations": [row]})
    app = open_page(monkeypatch, url, "insight")
    assert "Saved: 90.0 s, 10% of the search's training." in said(app)
    assert "At the pruner's rungs: step 10 0.50 (95 %: 0.10 to 0.80), used." in said(app)
    for odd in ("text", {"correlations": "x", "lost": 3}, {}):
        open_store(url).set_attribute("study", "pruning", odd)
        assert "could not be drawn" not in said(open_page(monkeypatch, url, "insight"))


def test_a_stored_adapter_can_be_downloaded(full_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOPEFT_ARTIFACTS", raising=False)
    plain = said(open_page(monkeypatch, full_url, "export", study="study", trial="5"))
    assert "The database keeps results, not weights." in plain
    assert "--publish" not in plain

    monkeypatch.setenv("AUTOPEFT_ARTIFACTS", str(tmp_path / "shared"))
    assert "With --publish it is stored" in said(open_page(monkeypatch, full_url, "export", study="study", trial="5"))
    export(open_artifacts(tmp_path / "shared"), tmp_path / "adapter", "study", 3)
    told = said(open_page(monkeypatch, full_url, "export", study="study", trial="3"))
    assert "form lora; it reproduced its score" in told

    monkeypatch.setenv("AUTOPEFT_ARTIFACTS", "s3://key:secret@bucket")
    told = said(open_page(monkeypatch, full_url, "export", study="study", trial="4"))
    assert "cannot be read just now" in told
    assert "secret" not in told


def test_workers_and_their_refusals_are_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full(url)
    assert "None is known." in said(open_page(monkeypatch, url, "health"))
    store = open_store(url)
    store.acquire_driver("study", "driver", executor="workers", lease_s=600)
    facts = WorkerFacts(id="box:1", host="box", pid=1, refusals={"study": f"lacks {HOSTILE}"})
    store.announce_worker(facts, lease_s=600)
    app = open_page(monkeypatch, url, "health")
    assert f"1 of 1 worker refuses this study: lacks {HOSTILE} (box:1)." in said(app)
    assert app.dataframe[0].value["this study"].tolist() == [f"refuses it: lacks {HOSTILE}"]


@pytest.mark.parametrize("page", PAGES)
def test_a_study_whose_name_is_no_unicode_is_shown(page: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such study is made any more, but an older version may have stored one."""
    full(url)
    with open_store(url)._engine.begin() as connection:  # type: ignore[attr-defined]
        text = json.dumps({**spec("caf\udce9").to_dict(), "task": {"name": "a\udcff.csv"}})
        connection.execute(update(StudyRow).values(name="caf\udce9", spec=text))
    app = open_page(monkeypatch, url, page, **({"study": "caf\\udce9", "trial": "5"} if page else {}))
    assert "could not be drawn" not in said(app)
    if page:
        assert app.selectbox(key="study picker").value == "caf\\udce9"
    else:
        assert app.dataframe[0].value["study"].tolist() == ["caf\\udce9"]
