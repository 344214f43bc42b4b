"""Adding trials; what is added, and when it is refused, is in the contracts."""

from __future__ import annotations

from pathlib import Path

from autopeft.store import SqlStore
from autopeft.store._additions import draft_row
from tests.store.builders import make_draft, make_spec


def test_a_thousand_trials_are_one_transaction(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        added = store.add_trials("s", [make_draft(rank) for rank in range(1, 1201)])
        assert [trial.number for trial in added] == list(range(1200))
        assert store.load_study("s").trials == tuple(added)


def test_a_row_has_the_identity_of_its_draft() -> None:
    draft = make_draft(3, seed=7)
    row = draft_row(draft)
    assert (row["role"], row["fingerprint"], row["train_examples"], row["epochs"], row["seed"]) == draft.identity
