"""Reads files of scores and outcomes of models that other systems serve, and checks every row.

A file is imported whole or not at all: with one bad row nothing is sent, and the bad rows are
named. So a corrected file can be imported without counting its good rows twice.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from features.entity_ids import check_entity_id
from features.errors import EntityIdError
from host.clock import DAY_MS
from monitoring.cells.outside_rows import VERSION_NAME, VERSION_RULE
from monitoring.store.waiting_outcomes import KEY_SEPARATOR
from turnout.errors import OperatorError
from turnout.monitoring.import_tables import BadRowError, column_names, read_texts

SKEW_MS = 300_000
"""How far the clocks of two systems may differ."""
RETAINED_DAYS = 1_826
"""Counts are kept so long, so older rows are refused."""
SHOWN = 20
"""Bad rows that are named one by one."""
TEXT_MAX = 128
KEY = "key"
OUTCOME_COLUMNS = ("time", "name", "value")


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One score of a model elsewhere."""

    key: str
    at_ms: int
    score: float
    version: str
    prediction: str


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One outcome. It has a key or a prediction, and the other is empty."""

    key: str
    """The ids of a row's entities, joined by 0x1f; a model elsewhere has one."""
    prediction: str
    at_ms: int
    name: str
    value: float


def read_score_rows(path: Path, now_ms: int | None = None) -> list[ScoreRow]:
    """Return the rows of a file with the columns key, time, score, and version and prediction.

    Without `version` all rows are of one version; without `prediction` outcomes are found by key.
    Raises OperatorError, which names the file's or the rows' faults.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms

    def row_of(key: str, at: str, score: str, version: str, prediction: str) -> ScoreRow:
        return ScoreRow(
            _key(key),
            _time(at, now),
            _number("score", score),
            _version(version),
            _text("prediction", prediction, required=False),
        )

    rows = _checked(path, ("key", "time", "score"), ("version", "prediction"), row_of, "scores")
    named = sum(bool(row.prediction) for row in rows)
    if named not in (0, len(rows)):
        raise OperatorError(
            f"{path.name}: {len(rows) - named} of {len(rows)} rows have no prediction; all have "
            "one, or none has"
        )
    return rows


def read_outcome_rows(path: Path, now_ms: int | None = None) -> list[OutcomeRow]:
    """Return the rows of a file with the columns time, name, value, and key or prediction.

    Raises OperatorError, which names the file's or the rows' faults.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms

    def row_of(at: str, name: str, value: str, key: str, prediction: str) -> OutcomeRow:
        if bool(key) is bool(prediction):
            raise BadRowError("it has a key and a prediction, or neither; give one of them")
        return OutcomeRow(
            _key(key) if key else "",
            _text("prediction", prediction, required=False),
            _time(at, now),
            _text("name", name, required=True),
            _number("value", value),
        )

    return _checked(path, OUTCOME_COLUMNS, (KEY, "prediction"), row_of, "outcomes")


def read_entity_outcome_rows(
    path: Path, model: str, entities: Sequence[str], now_ms: int | None = None
) -> list[OutcomeRow]:
    """Return the rows of a file with the columns time, name, value and one for each entity.

    entities  by which rows of the model are keyed. A single one may be called `key`, and is if its
              name is `time`, `name` or `value`.

    Raises OperatorError, which names the file's or the rows' faults. Any other column is a fault,
    because it might be an id that is not used.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    keyed_by = f"rows of {model!r} are keyed by {', '.join(entities)}"
    if not entities:
        raise OperatorError(
            f"nothing was imported: {model!r} has no entities, so no key finds its predictions. "
            "Report its outcomes by prediction id to a gateway (docs/calling.md)"
        )
    # Which columns have the ids. No column has an id and the time, name or value of an outcome.
    names = column_names(path)
    shared = [name for name in entities if name in OUTCOME_COLUMNS]
    if shared and len(entities) > 1:
        raise OperatorError(
            f"nothing was imported: {keyed_by}, and the column {', '.join(shared)} of the file "
            "belongs to the outcome. Report outcomes of this model by its entities to a gateway "
            "(ReportOutcome, docs/calling.md), or name the entity otherwise in its recipe"
        )
    alone = len(entities) == 1 and (shared or entities[0] not in names)
    keys = [KEY] if alone else list(entities)
    # Whether they are there, and no others.
    missing = [name for name in (*keys, *OUTCOME_COLUMNS) if name not in names]
    surplus = [name for name in names if name not in (*keys, *OUTCOME_COLUMNS)]
    if missing or surplus:
        faults = f"has no column {', '.join(missing)}" if missing else ""
        if surplus:
            faults += f"{' and ' if faults else ''}has the surplus column {', '.join(surplus)}"
        way = ""
        if "prediction" in surplus:
            way = ". Outcomes by prediction id are reported to a gateway (docs/calling.md)"
        raise OperatorError(
            f"nothing was imported: {path.name} {faults}. Its columns are {', '.join(names)}; "
            f"{keyed_by}, so they must be {', '.join((*keys, *OUTCOME_COLUMNS))}{way}"
        )

    # Rows of texts become outcomes.
    def row_of(at: str, name: str, value: str, *ids: str) -> OutcomeRow:
        return OutcomeRow(
            KEY_SEPARATOR.join([_id(*named) for named in zip(keys, ids, strict=True)]),
            "",
            _time(at, now),
            _text("name", name, required=True),
            _number("value", value),
        )

    return _checked(path, (*OUTCOME_COLUMNS, *keys), (), row_of, "outcomes")


def content_digest(rows: Sequence[ScoreRow | OutcomeRow]) -> bytes:
    """Return 32 bytes that the same rows in the same order have, whatever kind of file it is."""
    digest = blake2b(digest_size=32)
    for row in rows:
        digest.update(repr(row).encode())
    return digest.digest()


def _checked(
    path: Path,
    required: Sequence[str],
    others: Sequence[str],
    row_of: Callable[..., Any],
    what: str,
) -> list[Any]:
    """Return the rows of a file. Raises OperatorError when one cannot be used."""
    rows: list[Any] = []
    bad, faults = 0, list[str]()
    for number, values in enumerate(read_texts(path, required, others), start=1):
        try:
            if isinstance(values, BadRowError):
                raise values
            rows.append(row_of(*values))
        except (BadRowError, EntityIdError) as error:
            bad += 1
            if len(faults) < SHOWN:
                faults.append(f"row {number}: {error}")
    if bad:
        more = f"; {bad - len(faults)} more" if bad > len(faults) else ""
        raise OperatorError(
            f"{path.name}: {bad} of {bad + len(rows)} rows cannot be imported, and nothing was: "
            f"{'; '.join(faults)}{more}. Correct or remove them, and import the file again"
        )
    if not rows:
        raise OperatorError(f"{path.name} has no rows; {what} were expected")
    return rows


def _key(text: str) -> str:
    check_entity_id(text)
    return text


def _id(column: str, text: str) -> str:
    try:
        return _key(text)
    except EntityIdError as error:
        raise BadRowError(f"{column}: {error}") from error


def _text(name: str, text: str, *, required: bool) -> str:
    if (required and not text) or len(text.encode()) > TEXT_MAX or not (text or "-").isprintable():
        raise BadRowError(f"{name} {text[:40]!r} is no text of at most {TEXT_MAX} printable bytes")
    return text


def _version(text: str) -> str:
    if text and not VERSION_NAME.fullmatch(text):
        raise BadRowError(f"version {text[:40]!r} is no version; {VERSION_RULE}")
    return text


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise BadRowError(f"{name} {text[:40]!r} is no number") from error
    if not math.isfinite(number):
        raise BadRowError(f"{name} is {text[:40]!r}; it must be a finite number")
    return number


def _time(text: str, now_ms: int) -> int:
    try:
        at_ms = int(text)
    except ValueError as error:
        raise BadRowError(
            f"time {text[:40]!r} is no time; write 2026-11-30T12:00:00Z or Unix milliseconds"
        ) from error
    if at_ms > now_ms + SKEW_MS:
        raise BadRowError(f"time {_shown(at_ms)} is in the future")
    if at_ms <= now_ms - RETAINED_DAYS * DAY_MS:
        raise BadRowError(f"time {_shown(at_ms)} is older than the five years that counts are kept")
    return at_ms


def _shown(at_ms: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms / 1e3))
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"
