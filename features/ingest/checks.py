"""Checks the rows of a transform before any of them is stored, and counts what is odd."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from features.entity_ids import BYTES_MAX, check_entity_id
from features.errors import EntityIdError, SourceError
from features.expectations import Expect
from features.ingest.columns import INTEGER_TYPES
from features.ingest.encoding import EncodedFeature
from features.ingest.summary import ExpectationBreach, UnknownCategories
from features.rows import EVENT_MS_MAX
from features.staleness import forgotten_sql, stale_sql
from features.storage.database import identifier, quoted
from features.views import View

FUTURE_MS_MAX = 86_400_000
"""A row may be dated this long after the load, and after it became known."""

PLAUSIBLE_MS = 946_684_800_000
"""The year 2000. Other units are guessed by whether they would give a time since then."""

UNITS = (("seconds", 1_000, 1), ("microseconds", 1, 1_000), ("nanoseconds", 1, 1_000_000))
"""Name of a unit, and the fraction that makes milliseconds of it."""

NEWEST_MAX = 5
"""Spellings of unknown categories that are named."""

FEATURES_OF_A_QUERY = 64
"""Features that are counted by one query. DuckDB plans it in the square of their number."""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows of a load, and how many of them have something odd."""

    rows: int
    first_event_ms: int | None
    last_event_ms: int | None
    stale: int
    forgotten: int
    duplicates: int
    future: int
    """Rows that are dated, or became known, more than a day after the load."""
    last_future_ms: int | None
    """The latest of these instants."""
    ahead: int
    """Rows that are dated more than a day after now, whatever the load's own instant is."""
    early: int
    """Rows of January 1970, whose times are probably seconds."""


@dataclass(frozen=True, slots=True)
class FeatureCounts:
    """Rows of a load in which one feature has something odd."""

    missing: int
    unknown: int
    inexact: int
    outside: int
    """Rows outside the expectation's low and high."""


def check_entities(
    connection: duckdb.DuckDBPyConnection, view: View, types: Mapping[str, str], table: str
) -> None:
    """Raise unless each entity column has a good id in every row.

    The message of EntityIdError names the row and the number of bad rows, but never an id.
    """
    present = {name.lower(): kind for name, kind in types.items()}
    for entity in view.entities:
        # The column must be there, with a text in every row.
        kind, column = present.get(entity), identifier(entity)
        if kind is None:
            raise SourceError(f"the transform returns no {entity!r} column")
        count, absent = connection.execute(
            f"SELECT count(*), count(*) FILTER ({column} IS NULL) FROM {table}"
        ).fetchall()[0]
        if absent or not (kind == "VARCHAR" or kind.startswith("ENUM")):
            raise SourceError(
                f"entity {entity!r} must be VARCHAR and never NULL; {absent} of {count} rows are "
                f"NULL, the column is {kind}. Cast it to VARCHAR in the transform, and filter rows "
                "without an entity"
            )
        # DuckDB finds ids that cannot be used, and the check of one id says why.
        bad = (
            f"strlen(CAST({column} AS VARCHAR)) NOT BETWEEN 1 AND {BYTES_MAX} OR "
            f"regexp_matches(CAST({column} AS VARCHAR), "
            r"'[\x{00}-\x{1f}\x{7f}-\x{9f}]')"
        )
        rows = connection.execute(
            f"SELECT rowid, {column}, count(*) OVER () FROM {table} WHERE {bad} LIMIT 1"
        ).fetchall()
        for row, text, number in rows:
            try:
                check_entity_id(str(text))
            except EntityIdError as error:
                raise EntityIdError(
                    f"view {view.name!r}: row {row + 1} of the transform: {error}. {number:,} rows "
                    f"have such an id in {entity!r}"
                ) from error


def check_instant_type(types: Mapping[str, str], name: str) -> None:
    """Raise SourceError unless the transform returns *name* as a whole number."""
    kind = {column.lower(): kind for column, kind in types.items()}.get(name)
    if kind not in INTEGER_TYPES:
        raise SourceError(
            f"{name!r} is {kind or 'absent'}; the transform must return it as BIGINT, Unix "
            "milliseconds (epoch_ms(...) makes it from a timestamp, and a declared source has it)"
        )


def count_rows(
    connection: duckdb.DuckDBPyConnection,
    view: View,
    created: str,
    now_ms: int,
    load_ms: int,
    table: str,
) -> RowCounts:
    """Check the instants of all rows and count them.

    created  SQL of the instant at which a row became known, Unix ms.
    load_ms  the instant of the load. It is later than now_ms if its caller says so.

    Raises SourceError for an instant that is NULL or out of range, with the unit as the guess.
    `refuse_wrong_times` refuses the others.
    """
    # All counts come from one pass over the rows.
    age = f"{now_ms:d} - event_time_ms"
    latest = f"greatest(event_time_ms, {created})"
    future = f"{latest} > {load_ms + FUTURE_MS_MAX:d}"
    early = f"event_time_ms BETWEEN {PLAUSIBLE_MS // 1_000:d} AND {now_ms // 1_000:d}"
    row = connection.execute(
        f"SELECT count(*), count(event_time_ms), count({created}), min(event_time_ms), "
        f"max(event_time_ms), min({created}), max({created}), count(*) FILTER ({future}), "
        f"max({latest}) FILTER ({future}), "
        f"count(*) FILTER (event_time_ms > {now_ms + FUTURE_MS_MAX:d}), "
        f"count(*) FILTER ({early}), count(*) FILTER ({stale_sql(age, view.ttl_ms)}), "
        f"count(*) FILTER ({forgotten_sql(age, view.ttl_ms)}) FROM {table}"
    ).fetchall()[0]
    # The first seven are needed by the checks.
    rows, events, knowns, first, last, first_known, last_known, *odd = row
    late, latest_ms, ahead, seconds, old, gone = odd
    # Every row needs both instants, within what a row can hold.
    for name, count, low, high in (
        ("event_time_ms", events, first, last),
        ("created_ms", knowns, first_known, last_known),
    ):
        if count < rows:
            raise SourceError(
                f"{name!r} is NULL in {rows - count:,} of {rows:,} rows; every row needs it. "
                "Filter such rows in the transform"
            )
        if rows and not 0 <= low <= high < EVENT_MS_MAX:
            raise SourceError(
                f"{name!r} runs from {low} to {high}; Unix milliseconds lie in 0 to "
                f"{EVENT_MS_MAX}{_guess(high, now_ms)}"
            )
    # What is merely odd is counted.
    duplicates = _duplicates(connection, view, table) if rows else 0
    return RowCounts(
        rows, first, last, old - gone, gone, duplicates, late, latest_ms, ahead, seconds
    )


def refuse_wrong_times(counts: RowCounts, now_ms: int) -> None:
    """Raise SourceError for rows that are far in the future, or probably in another unit."""
    problem = wrong_times(counts, now_ms)
    if problem:
        raise SourceError(f"{problem}. Nothing was stored")


def wrong_times(counts: RowCounts, now_ms: int) -> str:
    """Return what is wrong with the times of a load, with the unit as the guess, or nothing."""
    # One row of the future would keep honest rows out of the online store, and a row that becomes
    # known in the future is in no training set until then.
    if counts.future:
        last = counts.last_future_ms or 0
        return (
            f"{counts.future:,} of {counts.rows:,} rows are dated, or became known, more than a "
            f"day in the future, up to {last}{_guess(last, now_ms)}; correct the times, or filter "
            "the rows in the transform"
        )
    # Rows that are known as late as they are dated may have another clock, but no other unit.
    guess = _guess(counts.last_event_ms or 0, now_ms)
    if counts.ahead and guess:
        return (
            f"{counts.ahead:,} of {counts.rows:,} rows are dated up to {counts.last_event_ms}"
            f"{guess}; declare the unit of the source"
        )
    if counts.early:
        first = counts.first_event_ms or 0
        return (
            f"{counts.early:,} of {counts.rows:,} rows have an 'event_time_ms' in January 1970, "
            f"from {first}{_guess(first, now_ms)}"
        )
    return ""


def likely_unit(instant: int, now_ms: int) -> str:
    """Return the unit that would make a plausible time of *instant*; empty: none would."""
    for name, up, down in UNITS:
        if PLAUSIBLE_MS <= instant * up // down <= now_ms + FUTURE_MS_MAX:
            return name
    return ""


def _guess(instant: int, now_ms: int) -> str:
    """Return the likely unit as the end of a sentence."""
    unit = likely_unit(instant, now_ms)
    return f"; they look like {unit}" if unit else ""


def duplicate_sql(view: View) -> str:
    """Return SQL that is true for a row whose entity and event time a later row has as well."""
    keys = ", ".join([*(identifier(entity) for entity in view.entities), "event_time_ms"])
    return f"(row_number() OVER (PARTITION BY {keys} ORDER BY rowid DESC) > 1)"


def _duplicates(connection: duckdb.DuckDBPyConnection, view: View, table: str) -> int:
    keys = ", ".join([*(identifier(entity) for entity in view.entities), "event_time_ms"])
    rows = connection.execute(
        f"SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {table} "
        f"GROUP BY {keys} HAVING n > 1)"
    ).fetchall()
    return int(rows[0][0])


def count_features(
    connection: duckdb.DuckDBPyConnection,
    view: View,
    encoded: Sequence[EncodedFeature],
    table: str,
) -> dict[str, FeatureCounts]:
    """Return feature -> counts, in the view's order."""
    counts: dict[str, FeatureCounts] = {}
    for start in range(0, len(encoded), FEATURES_OF_A_QUERY):
        some = encoded[start : start + FEATURES_OF_A_QUERY]
        conditions = [
            condition
            for item in some
            for condition in (
                f"NOT {item.present}",
                item.unknown,
                item.inexact,
                outside_sql(view, item) or "false",
            )
        ]
        selected = ", ".join(f"count(*) FILTER ({condition})" for condition in conditions)
        row: tuple[Any, ...] = connection.execute(f"SELECT {selected} FROM {table}").fetchall()[0]
        for index, item in enumerate(some):
            counts[item.feature.name] = FeatureCounts(*row[4 * index : 4 * index + 4])
    return counts


def outside_sql(view: View, item: EncodedFeature) -> str | None:
    """Return SQL that is true for a number outside the feature's expectation; None without one."""
    expect = view.expect.get(item.feature.name)
    if expect is None or (expect.low is None and expect.high is None):
        return None
    tests = [] if expect.low is None else [f"{item.number} < {float(expect.low)!r}"]
    tests += [] if expect.high is None else [f"{item.number} > {float(expect.high)!r}"]
    return f"(NOT isnan({item.number}) AND ({' OR '.join(tests)}))"


def unknown_categories(
    connection: duckdb.DuckDBPyConnection, item: EncodedFeature, count: int, table: str
) -> UnknownCategories:
    """Return the spellings that the dictionary lacks, those of the newest rows first."""
    column = identifier(item.feature.name)
    rows = connection.execute(
        f"SELECT CAST({column} AS VARCHAR) AS spelling FROM {table} WHERE {item.unknown} "
        f"GROUP BY spelling ORDER BY max(event_time_ms) DESC, spelling LIMIT {NEWEST_MAX:d}"
    ).fetchall()
    return UnknownCategories(count, tuple(row[0] for row in rows))


@dataclass(frozen=True, slots=True)
class Breaches:
    """The expectations that a load does not meet."""

    found: tuple[ExpectationBreach, ...]
    quarantine: tuple[tuple[str, str], ...]
    """(SQL condition of a row, reason) for the rows that are set aside."""


def breaches(
    view: View,
    encoded: Sequence[EncodedFeature],
    counts: Mapping[str, FeatureCounts],
    rows: RowCounts,
    now_ms: int,
) -> Breaches:
    """Compare a load with the view's expectations."""
    found: list[ExpectationBreach] = []
    quarantine: list[tuple[str, str]] = []
    total = max(1, rows.rows)
    # The expectations of each feature.
    for item in encoded:
        name = item.feature.name
        expect, count = view.expect.get(name), counts[name]
        if expect is None:
            continue
        outside = outside_sql(view, item) or "false"
        for what, seen, most, condition in (
            ("missing", count.missing, expect.missing_max, f"NOT {item.present}"),
            ("unknown", count.unknown, expect.unknown_max, item.unknown),
            (_range_text(expect), count.outside, 0.0, outside),
        ):
            if most is not None and seen / total > most:
                reason = f"{name}: {seen:,} of {rows.rows:,} rows are {what}; the view expects " + (
                    f"at most {most:.2%}" if most else "none"
                )
                found.append(ExpectationBreach(reason, expect.on_breach))
                if expect.on_breach == "quarantine":
                    quarantine.append((condition, f"{name} is {what}"))
    # The expectations of the rows.
    expected = view.expect_rows
    most = expected.duplicates_max
    if most is not None and rows.duplicates / total > most:
        reason = (
            f"{rows.duplicates:,} of {rows.rows:,} rows have the entity and the event time of "
            f"another row; the view expects " + (f"at most {most:.2%}" if most else "none")
        )
        found.append(ExpectationBreach(reason, expected.on_breach))
        if expected.on_breach == "quarantine":
            quarantine.append((duplicate_sql(view), "a later row has the same entity and time"))
    # No row can be set aside for being the newest, so such a load is stored or not.
    limit = expected.newest_within_ms
    if limit is not None and rows.last_event_ms is not None:
        age_ms = now_ms - rows.last_event_ms
        if age_ms > limit:
            reason = f"the newest row is {age_ms:,} ms old; the view expects at most {limit:,} ms"
            action = "warn" if expected.on_breach == "warn" else "stop"
            found.append(ExpectationBreach(reason, action))
    return Breaches(tuple(found), tuple(quarantine))


def _range_text(expect: Expect) -> str:
    """Return how a number outside the expectation is called."""
    if expect.low is None:
        return f"above {expect.high}"
    return f"below {expect.low}" + ("" if expect.high is None else f" or above {expect.high}")


def reasons_sql(quarantine: Sequence[tuple[str, str]]) -> str:
    """Return SQL for why a row is set aside; NULL for a row that is stored."""
    reasons = ", ".join(
        f"CASE WHEN {condition} THEN {quoted(reason)} END" for condition, reason in quarantine
    )
    return f"nullif(concat_ws('; ', {reasons}), '')"
