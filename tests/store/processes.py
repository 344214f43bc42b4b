"""What a test runs in processes of its own: ``python -m tests.store.processes ROLE URL GO WORKER``.

Each makes a file GO.WORKER when it is ready, waits until the file GO exists, so that all start at once, and prints one
JSON value per line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from autopeft.exceptions import TrialConflictError
from autopeft.store import SqlStore
from tests.store.builders import make_draft, make_measurement, make_point, make_spec


def show(value: object) -> None:
    print(json.dumps(value), flush=True)


def append_and_claim(url: str, worker: str) -> None:
    """Add ten trials that everybody adds and ten of its own, each under the number it believes next; then claim all."""
    own = 1000 * (1 + "abcdefgh".index(worker))
    added, claimed = [], []
    with SqlStore(url) as store:
        for rank in [*range(1, 11), *range(own, own + 10)]:
            draft = make_draft(rank)
            trials = store.load_study("s").trials
            while draft.identity not in {trial.draft.identity for trial in trials}:
                with suppress(TrialConflictError):
                    added.append(store.add_trial("s", draft, number=len(trials)).number)
                trials = store.load_study("s").trials
        # The others may still be adding: what they add now is theirs to claim.
        while (trial := store.claim_trial("s", worker, lease_s=600)) is not None:
            claimed.append(trial.number)
    show({"added": added, "claimed": claimed})


def create(url: str, worker: str) -> None:
    """Open a database that may not exist yet and make sure that the study exists."""
    with SqlStore(url) as store:
        store.ensure_study(make_spec())
        store.set_attribute("s", worker, worker)
        show(len(store.load_study("s").trials))


def write(url: str, worker: str) -> None:
    """Add, claim, report and complete without end, printing each number once its completion was acknowledged."""
    with SqlStore(url) as store:
        rank = 1 + len(store.load_study("s").trials)
        while True:
            store.add_trial("s", make_draft(rank))
            trial = store.claim_trial("s", worker, lease_s=600)
            assert trial is not None
            for step in range(3):
                store.add_point("s", trial.number, worker, make_point(step))
            store.complete_trial("s", trial.number, worker, [make_measurement()])
            show(trial.number)
            rank += 1


def claim_all(url: str, worker: str) -> None:
    """Claim until nothing waits: one by one, or a few together, each worker in its own way."""
    claimed = []
    limit = 1 + "abcdefghijklmnop".index(worker) % 4
    with SqlStore(url) as store:
        while True:
            if limit == 1:
                trial = store.claim_trial("s", worker, lease_s=600)
                found = [] if trial is None else [trial]
            else:
                found = [trial for _, trial in store.claim_next(worker, lease_s=600, limit=limit)]
            if not found:
                break
            assert all((trial.worker, trial.attempts) == (worker, 1) for trial in found)
            claimed += [trial.number for trial in found]
            # Others are still connecting: whoever is first must not have taken everything by then.
            time.sleep(0.005)
    show(claimed)


def relay(url: str, worker: str) -> None:
    """Take a trial, and from there on end each one and take the next until nothing waits."""
    ended = []
    with SqlStore(url) as store:
        found = store.claim_next(worker, lease_s=600)
        while found:
            ((name, trial),) = found
            number = trial.number
            assert (trial.worker, trial.attempts) == (worker, 1)
            store.heartbeat(name, number, worker, 600)
            found = store.complete_and_claim(name, number, worker, [make_measurement()], lease_s=600)
            ended.append(number)
    show(ended)


ROLES: dict[str, Callable[[str, str], None]] = {
    "append_and_claim": append_and_claim,
    "claim_all": claim_all,
    "create": create,
    "relay": relay,
    "write": write,
}


if __name__ == "__main__":
    role, url, go, worker = sys.argv[1:]
    Path(f"{go}.{worker}").touch()
    while not Path(go).exists():
        time.sleep(0.002)
    ROLES[role](url, worker)
