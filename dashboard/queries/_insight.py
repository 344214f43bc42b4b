"""Which parameters matter, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from autopeft.store import StudyReader

from ._texts import counted

Array = npt.NDArray[np.float64]

#: Fewer trials than this say nothing reliable about twenty parameters.
ENOUGH_TRIALS = 40
#: Share of the differences between unseen trials that a model must explain before its importances mean something.
ENOUGH_EXPLAINED = 0.3
#: Trials that a forest is grown on; more change nothing and take time.
_MOST_TRIALS = 800
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much each parameter of the space matters to a value.

    Args:
        frame: Columns ``parameter`` and ``importance``: how much worse unseen trials are predicted when this
            parameter's values are shuffled among them, as a share of the sum over parameters, in [0, 1]; largest first.
        explained: Coefficient of determination on trials that the model had not seen, <= 1; None without a model.
        n_trials: Trials it is based on.
        doubt: Why it is not reliable; None if it is.
    """

    frame: pd.DataFrame
    explained: float | None
    n_trials: int
    doubt: str | None


def params_frame(reader: StudyReader, study_name: str, numbers: Collection[int]) -> pd.DataFrame:
    """Points of the search space, one row per trial that came from one, by number.

    Returns:
        Column ``number`` and one per parameter; missing where a parameter was not active.
    """
    found = reader.params(study_name, numbers)
    rows = [{"number": number, **found[number]} for number in sorted(found)]
    return pd.DataFrame(rows, columns=None if rows else ["number"])


def importance(points: pd.DataFrame, values: Mapping[int, float], *, seed: int = 0) -> Importance:
    """Which parameters matter, by a random forest judged on trials that it has not seen.

    The forest predicts each fifth of the trials from the other four; a parameter's importance is the growth of the
    squared error there when its values are shuffled (permutation importance, Breiman 2001, section 10).

    Args:
        points: `params_frame`.
        values: The value to explain, by trial number.
        seed: Of the forest and the shuffling.
    """
    rows = points[points["number"].isin(list(values))]
    if len(rows) > _MOST_TRIALS:
        rows = rows.sample(_MOST_TRIALS, random_state=seed)
    names = [name for name in rows.columns if name != "number" and rows[name].map(repr).nunique() > 1]
    n = len(rows)
    empty = pd.DataFrame({"parameter": pd.Series(dtype=str), "importance": pd.Series(dtype=float)})
    if n < 2 * _FOLDS or not names:
        doubt = f"only {counted(n, 'trial')}" if n < 2 * _FOLDS else "no parameter was varied"
        return Importance(frame=empty, explained=None, n_trials=n, doubt=doubt)
    x = np.column_stack([encoded(rows[name]) for name in names])
    y = np.array([values[int(number)] for number in rows["number"]])
    if np.ptp(y) == 0:
        return Importance(frame=empty, explained=None, n_trials=n, doubt="all trials have the same value")
    explained, losses = _held_out(x, y, seed)
    gains = np.maximum(losses, 0.0)
    shares = gains / gains.sum() if gains.sum() > 0 else gains
    frame = pd.DataFrame({"parameter": names, "importance": shares})
    frame = frame.sort_values(["importance", "parameter"], ascending=[False, True], ignore_index=True)
    return Importance(frame=frame, explained=explained, n_trials=n, doubt=_doubt(n, explained))


def _doubt(n: int, explained: float) -> str | None:
    doubts = []
    if n < ENOUGH_TRIALS:
        doubts.append(f"only {counted(n, 'trial')}")
    if explained < ENOUGH_EXPLAINED:
        doubts.append(
            f"the model explains {100 * max(explained, 0):.0f} % of the differences between trials it has not seen"
        )
    return "; ".join(doubts) or None


def _held_out(x: Array, y: Array, seed: int) -> tuple[float, Array]:
    """Explained share on held-out trials, and the growth of the error there for each shuffled column."""
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(seed)
    folds = rng.permutation(np.arange(len(y)) % _FOLDS)
    error, growth = 0.0, np.zeros(x.shape[1])
    for fold in range(_FOLDS):
        inside, outside = folds != fold, folds == fold
        forest = RandomForestRegressor(n_estimators=32, min_samples_leaf=2, random_state=seed, n_jobs=1)
        forest.fit(x[inside], y[inside])
        held, n = x[outside], int(outside.sum())
        # All shuffled copies are predicted at once: one call costs more than a thousand rows.
        copies = np.tile(held, (1 + 2 * x.shape[1], 1))
        for j in range(x.shape[1]):
            for k in range(2):
                start = n * (1 + 2 * j + k)
                copies[start : start + n, j] = rng.permutation(held[:, j])
        squared = (forest.predict(copies) - np.tile(y[outside], 1 + 2 * x.shape[1])) ** 2
        sums = squared.reshape(-1, n).sum(axis=1)
        error += sums[0]
        growth += sums[1:].reshape(-1, 2).mean(axis=1) - sums[0]
    return float(1 - error / ((y - y.mean()) ** 2).sum()), growth


def encoded(column: pd.Series) -> Array:
    """A parameter as numbers: wide positive ones by logarithm, words by their order, inactive ones below all."""
    known = [value for value in column if not _is_missing(value)]
    if any(isinstance(value, str) for value in known):
        order = {value: i for i, value in enumerate(sorted({str(value) for value in known}))}
        return np.array([-1.0 if _is_missing(value) else order[str(value)] for value in column], dtype=np.float64)
    numbers = np.array([np.nan if _is_missing(value) else float(value) for value in column])
    present = numbers[~np.isnan(numbers)]
    if len(present) and present.min() > 0 and present.max() / present.min() > 20:
        numbers = np.log10(numbers)
    present = numbers[~np.isnan(numbers)]
    low, span = (present.min(), max(float(np.ptp(present)), 1.0)) if len(present) else (0.0, 1.0)
    return np.where(np.isnan(numbers), low - 0.1 * span, numbers)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)
