"""Every sampler that is compared, by name."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import autopeft.pruners
import autopeft.samplers
from autopeft.pruners import make_pruner
from autopeft.samplers import Sampler, Suggestion, make_sampler
from autopeft.study import Trial
from benchmarks.replay import autopeft_rival, optuna_rivals
from benchmarks.replay.autopeft_rival import AutoPeftRival
from benchmarks.replay.optuna_rivals import OptunaRival
from benchmarks.replay.simulate import Stop
from benchmarks.replay.world import World

#: (table, seed) -> a sampler that proposes rows of the table.
Make = Callable[[World, int], Sampler]


def _ours(name: str, world: World, seed: int) -> Sampler:
    return make_sampler(
        name,
        space=world.space,
        objectives=world.objectives,
        seed=seed,
        fidelity=world.fidelity,
        candidates=[row.point.params for row in world.rows],
    )


def _optuna(settings: optuna_rivals.Settings, world: World, seed: int) -> Sampler:
    return OptunaRival(world, settings, seed=seed)


def _autopeft(settings: autopeft_rival.Settings, world: World, seed: int) -> Sampler:
    return AutoPeftRival(world, settings, seed=seed)


class SnappedSampler:
    """Our sampler in the whole space, the nearest row standing for what it proposes: as most rivals are run.

    Args:
        world: The table.
        name: Of the sampler.
        seed: Of the study.
    """

    def __init__(self, world: World, name: str, *, seed: int) -> None:
        self._world = world
        self._sampler = make_sampler(
            name, space=world.space, objectives=world.objectives, seed=seed, fidelity=world.fidelity
        )

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        """See `autopeft.samplers.Sampler`, for n = 1."""
        taken = {item.configuration.fingerprint for item in trials}
        left = [row for row, item in enumerate(self._world.rows) if item.point.fingerprint not in taken]
        found = self._sampler.ask(trials, 1)
        if not left or not found:
            return []
        row = self._world.nearest(found[0].params, left)
        if row is None:
            raise ValueError(f"a sampler proposed {found[0].params}, which has no configuration.")
        return [Suggestion(params=self._world.rows[row].point.params, notes=found[0].notes)]


def _snapped(name: str, world: World, seed: int) -> Sampler:
    return SnappedSampler(world, name, seed=seed)


def _settings(name: str, **how: bool | int) -> Make:
    return functools.partial(_optuna, optuna_rivals.Settings(name=name, **how))  # type: ignore[arg-type]


#: Names say the method; "_snapped" that it searched the whole space and the nearest row stood for what it proposed (the
#: others choose among the rows themselves), "_design" that it began with our sampler's initial points.
CONTESTANTS: dict[str, Make] = {
    "bayesian": functools.partial(_ours, "bayesian"),
    "bayesian_snapped": functools.partial(_snapped, "bayesian"),
    "random": functools.partial(_ours, "random"),
    "tpe": _settings("tpe", is_exact=True),
    "tpe_design": _settings("tpe", is_exact=True, has_design=True, n_initial=8),
    "tpe_snapped": _settings("tpe"),
    "nsga2": _settings("nsga2", population=10),
    "nsga2_50": _settings("nsga2"),
    "gp": _settings("gp", is_exact=True),
    "gp_design": _settings("gp", is_exact=True, has_design=True, n_initial=8),
    "gp_snapped": _settings("gp"),
    "autopeft": functools.partial(_autopeft, autopeft_rival.Settings()),
    "autopeft_tuned": functools.partial(
        _autopeft, autopeft_rival.Settings(n_initial=8, is_published=False, has_design=True)
    ),
}
#: What stands in a report's tables unless told otherwise.
MAIN = ("bayesian", "random", "tpe", "nsga2", "gp", "autopeft")


def make_stop(world: World, pruner: str) -> Stop | None:
    """A pruner by name, deciding at the rungs of a table; None for "none"."""
    if pruner == "none":
        return None
    rungs = sorted({point.step for row in world.rows for run in row.runs.values() for point in run.curve[:-1]})
    found = make_pruner(pruner, objectives=world.objectives, fidelity=world.fidelity, rungs=rungs)
    return lambda trials, number: found.decide(trials, [number])[0].stop


@functools.lru_cache
def code_of(name: str, pruner: str = "none") -> str:
    """A hash of the code that decides what a contestant proposes: results of other code are not its results.

    Taken once per process, as the code is.

    Args:
        name: Key of `CONTESTANTS`.
        pruner: Key of `autopeft.pruners.PRUNERS`.
    """
    files = _files(autopeft.samplers)
    if not name.startswith("bayesian"):
        files = [path for path in files if path.name in ("_points.py", "_candidates.py", "_random.py")]
        here = Path(__file__).parent
        files += [here / "optuna_rivals.py"] if name.startswith(("tpe", "nsga2", "gp")) else []
        files += [here / "autopeft_rival.py"] if name.startswith("autopeft") else []
    if pruner != "none":
        files += _files(autopeft.pruners)
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _files(package: ModuleType) -> list[Path]:
    return sorted(Path(inspect.getfile(package)).parent.glob("*.py"))
