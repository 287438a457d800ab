"""Says why rows of a spine found no fresh stored row: other ids, later rows or too old ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.storage.id_forms import NORMALISATIONS, id_form, normalised_sql
from features.storage.queries import stored_sql
from features.views import View

SAMPLE_IDS = 1_000
"""Unknown ids that are compared with all stored ids after each normalisation."""

MATCHED_SHARE_MIN = 0.5
"""A normalisation explains unknown ids when so many of the sample match after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherForm:
    """How ids that a view does not have differ from those that it has.

    difference  the difference that explains them, such as "leading zeros"; empty: none was found.
    share       share of the sampled ids that match without that difference.
    asked       the form of the ids that were not found, such as "5 digits".
    stored      the form of the stored ids; of those that match, when some do.
    """

    difference: str
    share: float
    asked: str
    stored: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjoined:
    """The reasons of the rows of a spine that have no fresh stored row in one view.

    unknown       rows whose id has no stored row at all.
    later         rows whose id has stored rows, of which the first became known after the instant.
    backfilled    of these, rows with an event before the instant that was written after it.
    lateness_ms   the median time from the instant to the first row that became known; 0 without.
    too_old       rows whose stored row was older than the view's TTL.
    stored_ids    ids that the view has in all.
    form          the forms of both sides; None without an unknown id or without a stored one.
    """

    unknown: int
    later: int
    backfilled: int
    lateness_ms: int
    too_old: int
    stored_ids: int
    form: OtherForm | None


def find_reasons(
    connection: duckdb.DuckDBPyConnection, view: View, files: Sequence[Path]
) -> Unjoined:
    """Return the reasons for the rows of the table `wanted`: entity_id and as_of_ms.

    files  all files of the view; without any, every id is unknown.
    """
    # Of each stored id: when its first row became known, and its first event.
    stored = (
        stored_sql(files)
        if files
        else "SELECT '' AS entity_id, 0 AS known_ms, 0 AS event_time_ms WHERE false"
    )
    connection.execute(
        "CREATE TEMP TABLE stored_ids AS SELECT entity_id, min(known_ms) AS first_known_ms, "
        f"min(event_time_ms) AS first_event_ms FROM ({stored}) GROUP BY entity_id"
    ).fetchall()
    # Sort the rows by what the view has of their ids.
    counts = connection.execute(
        """
        SELECT count(*) FILTER (first_known_ms IS NULL),
               count(*) FILTER (first_known_ms > as_of_ms),
               count(*) FILTER (first_known_ms > as_of_ms AND first_event_ms <= as_of_ms),
               count(*) FILTER (first_known_ms <= as_of_ms),
               median(first_known_ms - as_of_ms) FILTER (first_known_ms > as_of_ms)
        FROM wanted LEFT JOIN stored_ids USING (entity_id)"""
    ).fetchall()[0]
    stored_ids = connection.execute("SELECT count(*) FROM stored_ids").fetchall()[0][0]
    return Unjoined(
        unknown=counts[0],
        later=counts[1],
        backfilled=counts[2],
        too_old=counts[3],
        lateness_ms=int(counts[4] or 0),
        stored_ids=stored_ids,
        form=_other_form(connection, view) if counts[0] and stored_ids else None,
    )


def _other_form(connection: duckdb.DuckDBPyConnection, view: View) -> OtherForm:
    """Compare a sample of the unknown ids with all stored ids, normalised in each way."""
    # The sample is chosen by a hash, so that the same data gives the same message.
    connection.execute(
        "CREATE TEMP TABLE unknown_ids AS SELECT DISTINCT entity_id FROM wanted "
        "ANTI JOIN stored_ids USING (entity_id) "
        f"ORDER BY hash(entity_id), entity_id LIMIT {SAMPLE_IDS}"
    ).fetchall()
    unknown = _texts(connection, "SELECT entity_id FROM unknown_ids")
    # The first normalisation that explains most of the sample is the cause.
    for normalisation in NORMALISATIONS:
        asked, kept = (
            normalised_sql(normalisation, f"{table}.entity_id", len(view.entities))
            for table in ("unknown_ids", "stored_ids")
        )
        pairs = connection.execute(
            "SELECT unknown_ids.entity_id, min(stored_ids.entity_id) FROM unknown_ids "
            f"JOIN stored_ids ON {asked} = {kept} WHERE {asked} <> '' GROUP BY 1"
        ).fetchall()
        if len(pairs) >= MATCHED_SHARE_MIN * len(unknown):
            return OtherForm(
                difference=normalisation.name,
                share=len(pairs) / len(unknown),
                asked=id_form([pair[0] for pair in pairs]),
                stored=id_form([pair[1] for pair in pairs]),
            )
    known = _texts(
        connection,
        f"SELECT entity_id FROM stored_ids ORDER BY hash(entity_id), entity_id LIMIT {SAMPLE_IDS}",
    )
    return OtherForm(difference="", share=0.0, asked=id_form(unknown), stored=id_form(known))


def _texts(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(sql).fetchall()]
