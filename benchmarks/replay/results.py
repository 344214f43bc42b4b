"""Replays on disk: one line each, so that an interrupted run goes on and several may write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.replay.simulate import Replay


@dataclass(frozen=True, kw_only=True)
class Task:
    """One replay to be done.

    Args:
        table: Name of the table.
        digest: Identity of its content.
        sampler: Key of `CONTESTANTS`.
        code: Identity of the sampler's code.
        workers: Trials at the same time.
        seed: Repetition.
        pruner: Name of the pruner; "none" for none.
        trials: Length.
    """

    table: str
    digest: str
    sampler: str
    code: str
    workers: int
    seed: int
    pruner: str
    trials: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What a longer replay of the same has in common with it."""
        return tuple(value for name, value in asdict(self).items() if name != "trials")


def append(path: Path, task: Task, found: Replay) -> None:
    """Add a line."""
    record = {**asdict(task), **asdict(found), "finished_s": [round(item, 2) for item in found.finished_s]}
    record["ask_s"] = round(found.ask_s, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")


def read(path: Path) -> list[tuple[Task, Replay]]:
    """All lines, in the order written; a line that was cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        task = Task(**{name: record[name] for name in Task.__dataclass_fields__})
        found.append(
            (
                task,
                Replay(
                    order=tuple(record["order"]),
                    finished_s=tuple(record["finished_s"]),
                    stopped_at={int(key): value for key, value in record["stopped_at"].items()},
                    sources=record["sources"],
                    ask_s=record["ask_s"],
                ),
            )
        )
    return found


def missing(wanted: Iterable[Task], path: Path) -> list[Task]:
    """Tasks without a line that is at least as long."""
    longest: dict[tuple[Any, ...], int] = {}
    for task, _ in read(path):
        longest[task.key] = max(longest.get(task.key, 0), task.trials)
    return [task for task in wanted if longest.get(task.key, 0) < task.trials]


def latest(
    lines: Sequence[tuple[Task, Replay]], digests: dict[str, str]
) -> dict[tuple[str, str, int, str], dict[int, Replay]]:
    """Replays by (table, sampler, workers, pruner) and seed: on the tables as they are, by the newest code each.

    Args:
        lines: In the order written.
        digests: Of the tables, by name.
    """
    newest: dict[tuple[str, str, int, str], str] = {}
    for task, _ in lines:
        if digests.get(task.table) == task.digest:
            newest[task.table, task.sampler, task.workers, task.pruner] = task.code
    found: dict[tuple[str, str, int, str], dict[int, Replay]] = {}
    lengths: dict[tuple[Any, ...], int] = {}
    for task, item in lines:
        group = task.table, task.sampler, task.workers, task.pruner
        is_current = digests.get(task.table) == task.digest and newest[group] == task.code
        if is_current and task.trials >= lengths.get((*group, task.seed), 0):
            lengths[(*group, task.seed)] = task.trials
            found.setdefault(group, {})[task.seed] = item
    return found
