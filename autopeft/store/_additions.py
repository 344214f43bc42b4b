"""Adding trials: their numbers, and that none is there twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, Text, bindparam, cast, func, insert, select
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.exc import IntegrityError

from autopeft.configuration import Configuration, DynamicsSpec, ModuleSpec
from autopeft.store import _messages as messages
from autopeft.store._codec import decode_configuration, encode_configuration, to_json
from autopeft.store._json_text import read_object
from autopeft.store._models import TrialRow
from autopeft.study import Trial, TrialDraft, TrialState

_IDENTITY = ("role", "fingerprint", "train_examples", "epochs", "seed")
_JSON_TYPES = {bool, int, float, str}
#: Fingerprints in one IN list; SQLite's oldest limit on variables is 999.
_CHUNK = 512


def draft_row(draft: TrialDraft) -> dict[str, Any]:
    """Columns of a draft."""
    role, fingerprint, train_examples, epochs, seed = draft.identity
    return {
        "kind": draft.kind.value,
        "role": role,
        "fingerprint": fingerprint,
        "configuration": encode_configuration(draft.configuration),
        "trainable_parameters": int(draft.trainable_parameters),
        "train_examples": int(train_examples),
        "epochs": int(epochs),
        "seed": int(seed),
        "params": None if draft.params is None else to_json(dict(draft.params), "params"),
        "label": draft.label,
        "parent": None if draft.parent is None else int(draft.parent),
    }


def add_rows(
    connection: Connection,
    study_name: str,
    study_id: int,
    drafts: Sequence[TrialDraft],
    notes: Sequence[str],
    *,
    number: int | None,
    now: datetime,
) -> list[Trial]:
    """Add trials under the next numbers; the study's row must be locked.

    Raises:
        NotFoundError: If a parent is not there.
        TrialConflictError: If the number or an identity is taken.
    """
    rows = [draft_row(draft) for draft in drafts]
    largest = connection.execute(select(func.max(TrialRow.number)).where(TrialRow.study_id == study_id)).scalar()
    # Numbers have no gaps, so the largest one tells.
    n_trials = 0 if largest is None else largest + 1
    if number is not None and number != n_trials:
        raise messages.number_taken(study_name, number, n_trials)
    mine: dict[tuple[Any, ...], int] = {}
    for offset, row in enumerate(rows):
        if row["parent"] is not None and not 0 <= row["parent"] < n_trials + offset:
            raise messages.trial_not_found(study_name, row["parent"], n_trials)
        identity = _identity(row)
        if identity in mine:
            raise messages.identity_taken(study_name, mine[identity])
        mine[identity] = n_trials + offset
    common = {"study_id": study_id, "state": TrialState.WAITING.value, "attempts": 0, "created_at": now}
    values = [
        {**row, **common, "number": n_trials + offset, "notes": text}
        for offset, (row, text) in enumerate(zip(rows, notes, strict=True))
    ]
    if not values:
        return []
    try:
        with connection.begin_nested():
            _insert(connection, values)
    except IntegrityError:
        # The database knows it best, and is asked for more only where it is so.
        known = _known(connection, study_id, rows)
        for row in rows:
            if _identity(row) in known:
                raise messages.identity_taken(study_name, known[_identity(row)]) from None
        raise
    return [_as_added(item, row) for item, row in zip(drafts, values, strict=True)]


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _IDENTITY)


def _insert(connection: Connection, values: list[dict[str, Any]]) -> None:
    """Insert rows, all of which have the same columns."""
    if connection.dialect.name == "sqlite":
        connection.execute(insert(TrialRow), values)
        return
    # One statement for all: what it takes to begin one is more than a row.
    columns = [column for column in TrialRow.__table__.columns if column.name in values[0]]
    binders = [(column.name, column.type.dialect_impl(connection.dialect)) for column in columns]
    processors = [(name, kind.bind_processor(connection.dialect)) for name, kind in binders]
    rows = [
        {name: row[name] if process is None else process(row[name]) for name, process in processors} for row in values
    ]
    connection.execute(_insert_many(tuple(values[0])), {"p_rows": json.dumps(rows, default=datetime.isoformat)})


@lru_cache
def _insert_many(names: tuple[str, ...]) -> Any:
    """Rows as one JSON text, in their order."""
    columns = [column for column in TrialRow.__table__.columns if column.name in names]
    given = (
        func.json_to_recordset(cast(bindparam("p_rows", type_=Text()), JSON))
        .table_valued(*(Column(column.name, column.type) for column in columns))
        .render_derived(with_types=True)
    )
    return insert(TrialRow).from_select([column.name for column in columns], select(*given.c))


def _as_added(draft: TrialDraft, row: dict[str, Any]) -> Trial:
    """The trial as it would be read from its row."""
    # One that comes back from its text as it was is kept: the sampler has it already.
    is_same = _is_plain(draft.configuration)
    as_stored = replace(
        draft,
        configuration=draft.configuration if is_same else decode_configuration(row["configuration"]),
        params=None if row["params"] is None else read_object(row["params"]),
    )
    return Trial(
        number=row["number"],
        draft=as_stored,
        state=TrialState.WAITING,
        created_at=row["created_at"],
        notes=json.loads(row["notes"]),
    )


def _is_plain(configuration: Configuration) -> bool:
    """Whether all values have the types that JSON gives, and no relatives of them."""
    specs: list[ModuleSpec | DynamicsSpec] = [item.module for item in configuration.placements]
    if configuration.dynamics is not None:
        specs.append(configuration.dynamics)
    plain = all(type(value) in _JSON_TYPES for spec in specs for _, value in spec.options)
    return plain and type(configuration.learning_rate) is float


def _known(connection: Connection, study_id: int, rows: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], int]:
    """Numbers of the trials that have the fingerprint of one of the rows, by identity."""
    columns = [getattr(TrialRow, name) for name in _IDENTITY]
    known: dict[tuple[Any, ...], int] = {}
    by_role: dict[str, list[str]] = {}
    for row in rows:
        by_role.setdefault(row["role"], []).append(row["fingerprint"])
    for role, fingerprints in by_role.items():
        for start in range(0, len(fingerprints), _CHUNK):
            chunk = fingerprints[start : start + _CHUNK]
            # As for numbers, see `autopeft.store._rows.in_chunks`.
            chunk += [chunk[-1]] * ((1 << (len(chunk) - 1).bit_length()) - len(chunk))
            statement = select(TrialRow.number, *columns).where(
                TrialRow.study_id == study_id, TrialRow.role == role, TrialRow.fingerprint.in_(chunk)
            )
            known |= {tuple(found)[1:]: found[0] for found in connection.execute(statement)}
    return known
