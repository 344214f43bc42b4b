"""Earlier studies that a search starts from: chosen once, then the same for every worker and every resume."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopeft.configuration import BoundSpace
from autopeft.exceptions import NotFoundError, StudyMismatchError, UsageError
from autopeft.samplers import MIN_EARLIER_TRIALS, WARM_SAMPLERS, EarlierStudy, bring_here
from autopeft.store import StudySummary, TrialStore, read_archive
from autopeft.study import Study, StudySpec, TrialKind, TrialState

#: Settings that are no study's name.
AUTO, NONE = "auto", "none"
#: Most studies that ``auto`` takes.
_MAX_SOURCES = 5
#: Attribute of a study: `WarmStart.to_dict`.
_ATTRIBUTE = "warm_start"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What a study was begun with.

    Args:
        asked: The setting: ``"auto"``, ``"none"``, a study's name, or a file.
        sources: The earlier studies themselves, as they were when the study began.
    """

    asked: str
    sources: tuple[EarlierStudy, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` is its inverse."""
        return {
            "schema_version": _SCHEMA_VERSION,
            "asked": self.asked,
            "sources": [item.to_dict() for item in self.sources],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WarmStart:
        """Rebuild from `to_dict`.

        Raises:
            StudyMismatchError: If a newer version wrote it.
        """
        if data["schema_version"] != _SCHEMA_VERSION:
            raise StudyMismatchError(
                f"the study's warm start has schema version {data['schema_version']}, but this autopeft reads version "
                f"{_SCHEMA_VERSION}; go on with the version that began the study."
            )
        return cls(asked=data["asked"], sources=tuple(EarlierStudy.from_dict(item) for item in data["sources"]))

    def describe(self) -> str:
        """One line for plans."""
        return "; ".join(item.describe() for item in self.sources) or "none"


def stored_warm_start(study: Study) -> WarmStart | None:
    """What a study was begun with; None if it has not begun."""
    stored = study.attributes.get(_ATTRIBUTE)
    if stored is not None:
        return WarmStart.from_dict(stored)
    # Begun by a version that knew no warm start.
    return WarmStart(asked=NONE) if study.of_kind(TrialKind.SEARCH) else None


def find_warm_start(asked: str, store: TrialStore | None, spec: StudySpec, space: BoundSpace) -> WarmStart:
    """Resolve the setting; nothing is stored.

    ``auto`` takes the studies of the database that can teach this one, at most `_MAX_SOURCES`: on the same backbone
    first, in the same search space first, the latest first.

    Args:
        asked: ``"auto"``, ``"none"``, a study's name or a unique beginning of it, or a file that
            `autopeft.store.archive_study` describes.
        store: Where earlier studies are; None if there is no database yet.
        spec: Of the study that is to begin.
        space: What it searches.

    Raises:
        NotFoundError: If there is no such study.
        UsageError: If the study or file cannot teach this search; the message says why.
    """
    if asked == NONE:
        return WarmStart(asked=asked)
    if asked == AUTO:
        found = () if store is None or spec.sampler not in WARM_SAMPLERS else _suitable(store, spec, space)
        return WarmStart(asked=asked, sources=tuple(found))
    if spec.sampler not in WARM_SAMPLERS:
        raise UsageError(
            f"--warm-start {asked}: sampler {spec.sampler} learns nothing from earlier studies; leave the flag out, or "
            f"use --sampler {' or '.join(sorted(WARM_SAMPLERS))}."
        )
    study = read_archive(Path(asked)) if _is_file(asked) else _named(asked, store, spec)
    return WarmStart(asked=asked, sources=(_required(asked, study, space),))


def begin_study(asked: str, store: TrialStore, spec: StudySpec, space: BoundSpace) -> Study:
    """Create a study with its warm start, or load it and see that it was begun with the same.

    The first process of a study decides; nothing is created if the warm start cannot be had.

    Raises:
        StudyMismatchError: If the study has other settings, or was begun with another warm start than is asked for.
        NotFoundError: See `find_warm_start`.
        UsageError: See `find_warm_start`.
    """
    is_new = all(item.name != spec.name for item in store.list_studies())
    found = find_warm_start(asked, store, spec, space) if is_new else None
    begun = stored_warm_start(store.ensure_study(spec))
    if begun is None:
        found = found or find_warm_start(asked, store, spec, space)
        begun = WarmStart.from_dict(store.settle_attribute(spec.name, _ATTRIBUTE, found.to_dict()))
    if asked not in (AUTO, begun.asked) and not (asked == NONE and not begun.sources):
        raise StudyMismatchError(
            f"study {spec.name} was begun with warm start {begun.asked} ({begun.describe()}), not {asked}; leave "
            "--warm-start out to go on, or start another study with --study."
        )
    return store.load_study(spec.name)


def _is_file(asked: str) -> bool:
    path = Path(asked).expanduser()
    return path.suffix == ".json" or len(path.parts) > 1 or path.exists()


def _named(asked: str, store: TrialStore | None, spec: StudySpec) -> Study:
    """The study meant by a name or a unique beginning of one."""
    names = [] if store is None else [item.name for item in store.list_studies()]
    fitting = [asked] if asked in names else [item for item in names if item.startswith(asked)]
    if len(fitting) == 1 and fitting[0] == spec.name:
        raise UsageError(f"--warm-start {asked}: study {spec.name} cannot start from itself; name another one.")
    if store is not None and len(fitting) == 1:
        return store.load_study(fitting[0])
    if fitting:
        raise NotFoundError(f"--warm-start {asked} is not unique: it could be {', '.join(sorted(fitting)[:8])}.")
    near = difflib.get_close_matches(asked, names, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else "See `autopeft status --all`."
    raise NotFoundError(f"--warm-start {asked}: there is no study and no file of that name. {hint}")


def _required(asked: str, study: Study, space: BoundSpace) -> EarlierStudy:
    """A study that was asked for by name, if it can teach."""
    earlier = _earlier(study)
    n_trials = 0 if earlier is None else len(earlier.trials)
    if earlier is None or n_trials < MIN_EARLIER_TRIALS:
        raise UsageError(
            f"--warm-start {asked}: study {study.spec.name} has {n_trials} measured trials to learn from, "
            f"{MIN_EARLIER_TRIALS} are needed; let it run on, or name another one."
        )
    n_usable = len(bring_here(earlier, space))
    if n_usable < MIN_EARLIER_TRIALS:
        raise UsageError(
            f"--warm-start {asked}: of the {n_trials} trials of study {study.spec.name}, {n_usable} can be said in "
            f"search space {space.space.name} within the budget, {MIN_EARLIER_TRIALS} are needed; name another study."
        )
    return earlier


def _suitable(store: TrialStore, spec: StudySpec, space: BoundSpace) -> Iterator[EarlierStudy]:
    """Studies that can teach, the most alike first."""

    def order(item: StudySummary) -> tuple[bool, bool, float]:
        backbone = ("name", "parameters", "n_layers")
        is_backbone = all(item.spec.backbone.get(key) == spec.backbone.get(key) for key in backbone)
        is_space = item.spec.space.get("name") == spec.space.get("name")
        return (not is_backbone, not is_space, -item.last_activity_at.timestamp())

    n_found = 0
    for summary in sorted(store.list_studies(), key=order):
        if summary.name == spec.name or summary.n_trials[TrialState.COMPLETE] < MIN_EARLIER_TRIALS:
            continue
        earlier = _earlier(store.load_study(summary.name))
        if earlier is not None and len(bring_here(earlier, space)) >= MIN_EARLIER_TRIALS:
            yield earlier
            n_found += 1
        if n_found == _MAX_SOURCES:
            return


def _earlier(study: Study) -> EarlierStudy | None:
    """What a study leaves to others; None if it lacks what is needed to read it."""
    try:
        return EarlierStudy.of(study)
    except KeyError:
        return None
