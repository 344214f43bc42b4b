"""A search on a table, with a simulated clock and simulated workers."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autopeft.samplers import Sampler, Suggestion
from autopeft.study import (
    SEARCH_SPLIT,
    Failure,
    Measurement,
    Rung,
    Trial,
    TrialDraft,
    TrialKind,
    TrialState,
)
from benchmarks.replay.world import Run, World

#: Whether to stop a running trial, given all trials; asked at every rung but the last.
Stop = Callable[[Sequence[Trial], int], bool]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What happened.

    Args:
        order: Row numbers of the table, as the trials ended.
        finished_s: Simulated clock at these ends.
        stopped_at: Rung (0, 1, ...) at which a trial was stopped, by position in `order`; those that ran to their end
            are absent.
        sources: How many suggestions came from where.
        ask_s: Seconds that the sampler took in all, by this machine's clock.
    """

    order: tuple[int, ...]
    finished_s: tuple[float, ...]
    stopped_at: dict[int, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    ask_s: float = 0.0


def replay(
    world: World,
    sampler: Sampler,
    *,
    n_trials: int,
    n_workers: int = 1,
    seed: int = 0,
    table_seed: int | None = None,
    stop: Stop | None = None,
) -> Replay:
    """Search a table.

    A worker that becomes free asks for one trial at once, knowing what has ended by then and what is still running; a
    trial takes as long as it took when the table was made. The sampler's own time does not move the clock.

    Args:
        world: The table.
        sampler: Proposes its rows, each at most once.
        n_trials: At which the search ends; earlier if the table is exhausted.
        n_workers: Trials that run at the same time.
        seed: Of the study.
        table_seed: Which of the table's runs are seen; None takes turns over the studies' seeds.
        stop: Pruner; None for none.

    Raises:
        ValueError: If the sampler proposes what is not in the table, or proposes it again.
    """
    here = _Search(world, seed, world.seeds[seed % len(world.seeds)] if table_seed is None else table_seed)
    while len(here.order) < n_trials:
        while len(here.running) < n_workers and len(here.trials) < n_trials and not here.is_exhausted:
            here.start(sampler)
        if not here.events:
            break
        here.advance(stop)
    return Replay(
        order=tuple(here.order),
        finished_s=tuple(here.finished_s),
        stopped_at=here.stopped_at,
        sources=here.sources,
        ask_s=here.ask_s,
    )


class _Search:
    def __init__(self, world: World, seed: int, table_seed: int) -> None:
        self.world = world
        self.seed = seed
        self.table_seed = table_seed
        self.clock = 0.0
        self.trials: list[Trial] = []
        self.rows: list[int] = []  # of the trials
        self.running: dict[int, float] = {}  # when each trial started
        self.events: list[tuple[float, int, int]] = []  # (when, trial, rung)
        self.order: list[int] = []
        self.finished_s: list[float] = []
        self.stopped_at: dict[int, int] = {}
        self.sources: dict[str, int] = {}
        self.ask_s = 0.0
        self.is_exhausted = False

    def start(self, sampler: Sampler) -> None:
        began = time.perf_counter()
        found = sampler.ask(self.trials, 1)
        self.ask_s += time.perf_counter() - began
        if not found:
            self.is_exhausted = True
            return
        row = self._row(found[0])
        number = len(self.trials)
        point = self.world.rows[row].point
        draft = TrialDraft(
            kind=TrialKind.SEARCH,
            configuration=point.configuration,
            trainable_parameters=point.trainable_parameters,
            fidelity=self.world.fidelity,
            seed=self.seed,
            params=dict(point.params),
        )
        self.trials.append(Trial(number=number, draft=draft, state=TrialState.RUNNING))
        self.rows.append(row)
        self.running[number] = self.clock
        source = found[0].source.value
        self.sources[source] = self.sources.get(source, 0) + 1
        self._schedule(number, 0)

    def advance(self, stop: Stop | None) -> None:
        """Go on to the next rung or end of a trial."""
        self.clock, number, rung = heapq.heappop(self.events)
        run = self._run(number)
        if rung >= len(run.curve) - 1:
            self._end(number, self._finished(number, run))
            return
        self.trials[number] = replace(self.trials[number], curve=run.curve[: rung + 1])
        if stop is not None and stop(self.trials, number):
            self.stopped_at[len(self.order)] = rung
            self._end(number, self._stopped(number, run, rung))
        else:
            self._schedule(number, rung + 1)

    def _row(self, suggestion: Suggestion) -> int:
        fingerprint = self.world.space.compile(suggestion.params).fingerprint
        row = self.world.index.get(fingerprint)
        if row is None or row in self.rows:
            problem = "is not in the table" if row is None else "was proposed before"
            raise ValueError(f"configuration {fingerprint} {problem}.")
        return row

    def _run(self, number: int) -> Run:
        return self.world.rows[self.rows[number]].runs[self.table_seed]

    def _schedule(self, number: int, rung: int) -> None:
        run = self._run(number)
        is_last = rung >= len(run.curve) - 1
        after = run.wall_time_s if is_last else run.curve[rung].wall_time_s
        heapq.heappush(self.events, (self.running[number] + after, number, rung))

    def _end(self, number: int, trial: Trial) -> None:
        self.trials[number] = trial
        del self.running[number]
        self.order.append(self.rows[number])
        self.finished_s.append(self.clock)

    def _finished(self, number: int, run: Run) -> Trial:
        trial = replace(self.trials[number], curve=run.curve)
        if run.value is None:
            reason = run.failure or "error"
            failure = Failure(reason=reason, message=f"failed in the table ({reason})")
            return replace(trial, state=TrialState.FAILED, failure=failure)
        return replace(trial, state=TrialState.COMPLETE, measurements=(self._measured(run, len(run.curve) - 1),))

    def _stopped(self, number: int, run: Run, rung: int) -> Trial:
        return replace(
            self.trials[number],
            state=TrialState.PRUNED,
            curve=run.curve[: rung + 1],
            measurements=(self._measured(run, rung),),
        )

    def _measured(self, run: Run, rung: int) -> Measurement:
        point, end = run.curve[rung], run.curve[-1]
        costs = {"wall_time_s": run.wall_time_s if point is end else point.wall_time_s}
        if run.peak_memory_bytes is not None:
            costs["peak_memory_bytes"] = run.peak_memory_bytes
        return Measurement(
            split=SEARCH_SPLIT,
            fidelity=self.world.fidelity,
            seed=self.seed,
            metrics=point.metrics,
            costs=costs,
            curve=run.curve[: rung + 1],
            rung=None if point is end else Rung(step=point.step, n_steps=end.step),
        )
