"""A look costs what has changed; that it misses nothing is in the contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import event, text

from autopeft.store import SqlStore, StudyFollower
from autopeft.store._changes import read_changes
from autopeft.study import Rung, TrialState
from tests.store.builders import claimed, make_draft, make_measurement, make_spec


def test_a_look_runs_as_many_statements_however_long_the_study_is(tmp_path: Path) -> None:
    counts = []
    for n_finished in (1, 30):
        with SqlStore(tmp_path / f"{n_finished}.db") as store:
            store.create_study(make_spec())
            for rank in range(1, n_finished + 1):
                trial = claimed(store, "s", rank=rank)
                store.complete_trial("s", trial.number, "w", [make_measurement()])
            follower = StudyFollower(store, "s")
            follower.refresh()
            seen: list[str] = []
            event.listen(store._engine, "before_cursor_execute", lambda *args, seen=seen: seen.append(args[2]))
            follower.refresh()
            assert not any("configuration" in statement for statement in seen)
            store.add_trial("s", make_draft(999))
            follower.refresh()
            # What is known of a trial already is not read again with what has become of it.
            seen.clear()
            store.claim_trial("s", "w", lease_s=60)
            seen.clear()
            follower.refresh()
            assert [item.state.value for item in follower.changed] == ["RUNNING"]
            assert not any("configuration" in statement for statement in seen)
            store.add_trial("s", make_draft(1000))
            follower.refresh()
            counts.append(len(seen))
    assert counts[0] == counts[1]


def test_no_look_scans_the_trials(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        with store._engine.connect() as connection:
            mark = read_changes(connection, "s", None, running=False).mark  # type: ignore[union-attr]
            statements: list[tuple[str, object]] = []
            event.listen(store._engine, "before_cursor_execute", lambda *args: statements.append((args[2], args[3])))
            claimed(store, "s")
            statements.clear()
            read_changes(connection, "s", mark, running=False)
            for statement, parameters in [item for item in statements if item[0].startswith("SELECT")]:
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
                plan = " ".join(row[3] for row in rows)
                assert "SCAN trials" not in plan, plan
                assert "SCAN measurements" not in plan, plan


def test_marks_are_made_of_what_the_database_counts(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        claimed(store, "s")
        store.add_trial("s", make_draft(2))
        mark = store.load_changes("s", None).mark
        assert (mark.n_trials, mark.last_claim) == (2, 1)
        assert dict(mark.unfinished) == dict(enumerate(store.load_study("s").trials))
        with store._engine.connect() as connection:
            assert connection.execute(text("SELECT max(id) FROM leases")).scalar() == 1


def test_claims_that_a_server_lost_hide_no_later_ones(tmp_path: Path) -> None:
    """Their keys are given again: what was stopped, went on and was stopped again meanwhile is found all the same."""
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        claimed(store, "s")
        pruned = replace(make_measurement(), rung=Rung(step=1, n_steps=9))
        store.complete_trial("s", 0, "w", [pruned], TrialState.PRUNED)
        mark = replace(store.load_changes("s", None).mark, last_claim=100)
        store.continue_trial("s", 0)
        store.claim_trial("s", "w", lease_s=60)
        again = replace(pruned, rung=Rung(step=2, n_steps=9))
        store.complete_trial("s", 0, "w", [again], TrialState.PRUNED)
        changes = store.load_changes("s", mark)
        assert [item.measurements for item in changes.trials] == [(pruned, again)]
        assert changes.mark.last_claim == 2
        assert store.load_changes("s", changes.mark).trials == ()
