"""Checks pushed rows one by one, and encodes the good ones as every other row is encoded."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.encode import Column, encode_columns
from features.entity_ids import BYTES_MAX, check_entity_id, join_ids
from features.errors import EntityIdError
from features.ingest.checks import PLAUSIBLE_MS, likely_unit
from features.rows import ViewRows
from features.staleness import CLOCK_SKEW_MS_MAX, is_forgotten
from features.storage.pushed_log import RowToLog
from features.views import FLOAT32_MAX, View
from protos.features_pb2 import PushRow

EVENT_ID_BYTES_MAX = 128

NUMBER, CATEGORY = "number", "category"


@dataclass(frozen=True, slots=True)
class ReceivedRow:
    """A row as it was sent, with its maps as dicts: those of a message are slow."""

    event_id: str
    ids: tuple[str, ...]
    event_time_ms: int
    numbers: dict[str, float]
    texts: dict[str, str]


def received_rows(rows: Iterable[PushRow]) -> list[ReceivedRow]:
    """Return the rows of a request."""
    return [
        ReceivedRow(
            row.event_id, tuple(row.ids), row.event_time_ms, dict(row.numbers), dict(row.texts)
        )
        for row in rows
    ]


def find_faults(editions: Sequence[View], rows: Sequence[ReceivedRow], now_ms: int) -> list[str]:
    """Return for each row why it is refused, as a sentence that names it; empty for a good row.

    A row is good if each edition can take it and one of them at least knows each feature.

    editions  one or more editions of one view.
    now_ms    the present, Unix ms.
    """
    dtypes: dict[str, set[str]] = {}
    for view in editions:
        for feature in view.features:
            dtypes.setdefault(feature.name, set()).add(feature.dtype)
    numbers = {name for name, known in dtypes.items() if known == {NUMBER}}
    texts = {name for name, known in dtypes.items() if known == {CATEGORY}}
    faults = []
    for position, row in enumerate(rows, start=1):
        fault = (
            _fault_of_event_id(row.event_id)
            or _fault_of_ids(editions, row.ids)
            or _fault_of_event_time(row.event_time_ms, now_ms)
        )
        # Names are compared as sets, and looked at one by one only to say what is wrong.
        for sent, known, what in ((row.numbers, numbers, "number"), (row.texts, texts, "text")):
            if not fault and not sent.keys() <= known:
                fault = _fault_of_features(editions[0], dtypes, sent.keys() - known, what)
        fault = fault or _fault_of_numbers(row.numbers)
        faults.append(f"row {position}: {fault}" if fault else "")
    return faults


def encode_rows(view: View, rows: Sequence[ReceivedRow], now_ms: int) -> list[RowToLog]:
    """Return good rows as an edition stores them, in order. Features of others are left out."""
    columns: dict[str, Column] = {}
    for feature in view.features:
        name = feature.name
        if feature.dtype == NUMBER:
            columns[name] = np.array([row.numbers.get(name, math.nan) for row in rows])
        else:
            columns[name] = np.array([row.texts.get(name) for row in rows], dtype=object)
    values, valid = encode_columns(view, columns)
    event_times_ms = np.array([row.event_time_ms for row in rows], dtype=np.int64)
    ids = [join_ids([entity_id.encode() for entity_id in row.ids]) for row in rows]
    packed = ViewRows(view).pack(ids, event_times_ms, values, valid)
    forgotten = is_forgotten(now_ms - event_times_ms, view.ttl_ms).tolist()
    return [
        RowToLog(row.event_id, entity_id, row.event_time_ms, content, not is_old)
        for row, entity_id, content, is_old in zip(rows, ids, packed, forgotten, strict=True)
    ]


def _fault_of_event_id(event_id: str) -> str:
    if event_id.isascii() and 0 < len(event_id) <= EVENT_ID_BYTES_MAX:
        return ""
    size = len(event_id.encode())
    if 0 < size <= EVENT_ID_BYTES_MAX:
        return ""
    return (
        f"event_id has {size} bytes; give each row an id of its own, 1 to {EVENT_ID_BYTES_MAX} "
        "bytes, that is the same when the row is sent again"
    )


def _fault_of_ids(editions: Sequence[View], ids: Sequence[str]) -> str:
    for view in editions:
        if len(ids) != len(view.entities):
            return (
                f"it has {len(ids)} ids; view {view.name!r} is keyed by "
                f"{', '.join(view.entities)}, in this order"
            )
    for entity_id in ids:
        if entity_id.isascii() and entity_id.isprintable() and 0 < len(entity_id) <= BYTES_MAX:
            continue
        try:
            check_entity_id(entity_id)
        except EntityIdError as error:
            return str(error)
    return ""


def _fault_of_event_time(event_time_ms: int, now_ms: int) -> str:
    if PLAUSIBLE_MS <= event_time_ms <= now_ms + CLOCK_SKEW_MS_MAX:
        return ""
    when = "is before the year 2000" if event_time_ms < PLAUSIBLE_MS else "is over an hour ahead"
    unit = likely_unit(event_time_ms, now_ms)
    looks = f", and this looks like {unit}" if unit else ""
    return f"event_time_ms {event_time_ms} {when}; it is in Unix milliseconds{looks}"


def _fault_of_numbers(numbers: Mapping[str, float]) -> str:
    """Return what is wrong with the first number that is not finite in float32."""
    # A sum is finite only if each number is.
    if not numbers or (
        math.isfinite(sum(numbers.values()))
        and max(numbers.values()) <= FLOAT32_MAX
        and min(numbers.values()) >= -FLOAT32_MAX
    ):
        return ""
    for name, number in numbers.items():
        if not -FLOAT32_MAX <= number <= FLOAT32_MAX:
            what = "NaN" if math.isnan(number) else f"{number:g}, which float32 cannot hold"
            return f"{name!r} is {what}; leave a feature out that is missing"
    return ""


def _fault_of_features(
    view: View, dtypes: Mapping[str, Collection[str]], names: Collection[str], sent: str
) -> str:
    """Return what is wrong with features that are not known, or are sent as another type."""
    name = min(names)
    known = dtypes.get(name)
    if known is None:
        features = ", ".join(feature.name for feature in view.features[:20])
        more = ", ..." if len(view.features) > 20 else ""
        return f"view {view.name!r} has no feature {name[:64]!r}; it has {features}{more}"
    if len(known) > 1:
        return (
            f"{name!r} is a number in one edition of view {view.name!r} and a category in another; "
            "send the row to each edition by its view_hash"
        )
    (dtype,) = known
    where = "numbers" if dtype == NUMBER else "texts"
    return f"{name!r} is a {dtype} and was sent as a {sent}; send it in {where}"
