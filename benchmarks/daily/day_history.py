"""Fills a folder of monitoring with five weeks of history, which a day's work reads.

History is written into the tables directly. Cells of one hour stand for those of every hour, and
the rows of one week for those of every model and week.
"""

import os
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from benchmarks.daily.day_versions import (
    OUTCOME,
    DayVersion,
    block_of,
    cells_of_hour,
    sampled_rows,
)
from monitoring.cells.cell import CellKey
from monitoring.cells.decision_rows import DecisionRows
from monitoring.decisions.parquet import open_writer, write_decisions
from monitoring.looks.person_looks import PersonCounter
from monitoring.store.cell_rows import digest_text
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import AcceptedReference, LookOutcome, LookStore
from monitoring.store.tables import HOUR, cells, decision_files, outcomes
from monitoring.watch.day_runner import DAYS, PERSONS
from protos.predict_pb2 import PRODUCTION

HISTORY_DAYS = 36
"""Hours are rolled up after 35 days, so one day of each model is due."""
FINAL_DAYS = 17
OUTCOMES_A_DAY = 3_000
INSERTED_ROWS = 5_000
DISTINCT_DAYS = 7
"""Days whose rows are made; the days before have the same ones."""
RETAINED_DAYS = 46
"""Looks at customers read the four weeks that end 17 days ago."""
DAY_NS = 86_400 * 10**9
HOURS = 24
PERSONS_MAX = 500_000
"""Customers of a model whose rows are kept."""


def write_history(
    folder: Path, versions: list[DayVersion], day: int, rows_a_day: int, keys_a_day: int
) -> None:
    """Write what was there before a Unix day, a Sunday.

    rows_a_day  predictions of each model. keys_a_day  kept rows of each model.
    """
    rng = np.random.default_rng(day)
    database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
    _insert(database, cells, _cell_rows(rng, versions, day, rows_a_day))
    _insert(database, outcomes, _outcome_rows(rng, versions, day))
    # The rows of the days that looks read, and the person-looks of the accepted weeks.
    looks = LookStore(database)
    made = [
        rows_of_time(rng, (day - offset) * DAY_NS, DAY_NS, keys_a_day)
        for offset in range(DISTINCT_DAYS, 0, -1)
    ]
    for number, rows in enumerate(made):
        _write_files(folder / "decisions", database, versions, day, number, rows)
    _accept_days(looks, versions, day, rows)
    database.close()


def rows_of_time(
    rng: np.random.Generator, start_ns: int, length_ns: int, keys: int
) -> DecisionRows:
    """Return one row of each of *keys* persons, most of whom come on other days too."""
    persons = rng.integers(0, PERSONS_MAX, keys).astype(np.uint64)
    at = start_ns + np.sort(rng.integers(0, length_ns, keys))
    return sampled_rows(rng, at, persons * np.uint64(0x9E3779B97F4A7C15))


def _cell_rows(
    rng: np.random.Generator, versions: list[DayVersion], day: int, rows_a_day: int
) -> Iterator[dict[str, Any]]:
    a_hour = rows_a_day // HOURS
    for version in versions:
        for final in (True, False):
            first = day - HISTORY_DAYS if final else day - FINAL_DAYS
            until = day - FINAL_DAYS if final else day
            for key, counts in cells_of_hour(rng, version, 0, a_hour, final=final):
                content = counts.to_bytes()
                for hour in range(first * HOURS, until * HOURS):
                    yield _cell_row(key, hour, counts.rows, content)


def _cell_row(key: CellKey, hour: int, rows: int, content: bytes) -> dict[str, Any]:
    return {
        "grain": HOUR,
        "start_hour": hour,
        "model": key.model,
        "version": key.version,
        "digest8": digest_text(key.digest8),
        "role": key.role,
        "holdout": key.holdout,
        "segment": key.segment,
        "calls": rows,
        "rows": rows,
        "columns": content,
    }


def _outcome_rows(
    rng: np.random.Generator, versions: list[DayVersion], day: int
) -> Iterator[dict[str, Any]]:
    for version in versions:
        for past in range(day - HISTORY_DAYS, day - 1):
            keys = rng.integers(0, 2**63, OUTCOMES_A_DAY).tolist()
            scores = rng.random(OUTCOMES_A_DAY).tolist()
            for key, score in zip(keys, scores, strict=True):
                predicted_ms = past * 86_400_000 + key % 86_400_000
                yield {
                    "id_digest": rng.bytes(16),
                    "row": 0,
                    "name": OUTCOME,
                    "model": version.model,
                    "version": "1",
                    "digest8": digest_text(version.digest8),
                    "role": PRODUCTION,
                    "holdout": key % 20 == 0,
                    "segment": "",
                    "predicted_unix_ms": predicted_ms,
                    "score": score,
                    "value": 1.0,
                    "received_unix_ms": predicted_ms + 86_400_000,
                    "key_hash": digest_text(key),
                }


def _insert(database: MonitoringDatabase, table: Any, rows: Iterator[dict[str, Any]]) -> None:  # noqa: ANN401
    while part := list(islice(rows, INSERTED_ROWS)):
        with database.write_transaction() as connection:
            connection.execute(insert(table), part)


def _write_files(
    folder: Path,
    database: MonitoringDatabase,
    versions: list[DayVersion],
    day: int,
    number: int,
    rows: DecisionRows,
) -> None:
    """Write the rows of a day to one file, and give each model links to it on every seventh day."""
    first = folder / f"written-{number}.parquet"
    with open_writer() as writer:
        write_decisions(writer, first, [block_of(versions[0], day, rows)])
    named = []
    for version, past in product(versions, range(number + 1, RETAINED_DAYS, DISTINCT_DAYS)):
        name = f"{version.model}/{day - past}/part-0.parquet"
        (folder / name).parent.mkdir(parents=True)
        os.link(first, folder / name)
        named.append({"name": name, "model": version.model, "day": day - past, "rows": len(rows)})
    _insert(database, decision_files, iter(named))
    first.unlink()


def _accept_days(
    looks: LookStore, versions: list[DayVersion], day: int, rows: DecisionRows
) -> None:
    """Accept the two weeks before the last one, and say that all days before *day* were seen."""
    first, last = day - 20, day - 7
    for version in versions:
        counter = PersonCounter(version.facts)
        counter.add(rows)
        for past in range(first, day):
            looks.save_person_looks(version.model, "1", counter.counted(past, 1), shadow=False)
            if past % 7 == day % 7:
                week = counter.counted(past, 7)
                looks.save_person_looks(version.model, "1", week, shadow=False)
        looks.accept_reference(AcceptedReference(version.model, "1", 1, first, last))
        looks.save_look(version.model, "1", PERSONS, day - 1, LookOutcome())
    looks.save_look("", "", DAYS, day - 1, LookOutcome())
