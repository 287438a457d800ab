"""Measures how many outcomes by entity find their predictions in a minute.

    python -m benchmarks.monitoring --only attribution

A million reports of one model wait, as after an import. Its decisions of 30 days are kept, of
200,000 customers a day out of 500,000, with 20 inputs. Monitoring takes page after page while its
share of a minute lasts. A page is one search through the files of the horizon, and one transaction.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from sqlalchemy import insert

from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from host.clock import DAY_MS, DAY_NS
from monitoring.api.component import ATTRIBUTE_MAX_S
from monitoring.api.entity_outcomes import PAGE, EntityOutcomes
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.cells.version_bins import OutputBins, VersionBins
from monitoring.decisions.answered_rows import AnsweredRows
from monitoring.decisions.parquet import copy_sorted, open_writer
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.tables import decision_files, entity_outcomes
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.score_grid import score_grid_edges

MODEL, OUTCOME = "churn", "churned"
DAY = 20_800
"""The Unix day of the import."""
DAYS, KEYS_A_DAY, PERSONS, INPUTS = 30, 200_000, 500_000, 20
REPORTS = 1_000_000
PAGES = 10
"""Pages that are measured; all cost the same."""
RATE_MIN = 20_000
QUICK_KEYS_A_DAY, QUICK_PERSONS, QUICK_REPORTS = 2_000, 5_000, 20_000
INSERTED_ROWS = 50_000


def main(options: MonitoringOptions) -> list[MeasuredBar]:
    """Return the bars of the rate, and what reading the backlog costs."""
    # What is asked for.
    pages = options.rounds or PAGES
    keys, persons, reports = KEYS_A_DAY, PERSONS, REPORTS
    if options.quick:
        keys, persons, reports = QUICK_KEYS_A_DAY, QUICK_PERSONS, QUICK_REPORTS
    with tempfile.TemporaryDirectory(prefix="turnout-attribution-") as folder:
        store, job = _waiting_world(Path(folder), options.seed, keys, persons, reports)
        # Pages by processor time, because others share the machine.
        page_s, found_rows = [], 0
        for _ in range(pages):
            started_s = time.process_time()
            found_rows += job.attribute()
            page_s.append(time.process_time() - started_s)
        # What the metrics page asks for every 15 seconds.
        started_s = time.process_time()
        left = sum(item.number for item in store.outcome_backlogs().values())
        backlog_ms = (time.process_time() - started_s) * 1e3
        counted = sum(item.outcomes for item in store.coverage(0, 10**9))
        store.close()
    assert counted > 0
    assert left == reports - found_rows
    # A page that began within the share is finished.
    rate = PAGE * max(1.0, ATTRIBUTE_MAX_S / median(page_s))
    subject = f"{reports:,} reports, {DAYS} days of {keys:,} kept rows"
    return [
        MeasuredBar(
            subject=f"{subject}: reports a minute, in {ATTRIBUTE_MAX_S:g} s of it",
            measured=f"{rate:,.0f}; {reports:,} within {reports / rate:,.0f} minutes",
            promised=f">= {RATE_MIN:,}",
            passed=None if options.quick else rate >= RATE_MIN,
            numbers={"rate_a_minute": rate, "page_s": page_s, "page": PAGE, "counted": counted},
        ),
        MeasuredBar(
            subject="a page: processor time",
            measured=f"{median(page_s):.2f} s at the median, {max(page_s):.2f} s at most",
            numbers={"median_s": median(page_s)},
        ),
        MeasuredBar(
            subject=f"number and age of {left:,} waiting reports",
            measured=f"{backlog_ms:.0f} ms",
            numbers={"backlog_ms": backlog_ms},
        ),
    ]


def _waiting_world(
    folder: Path, seed: int, keys: int, persons: int, reports: int
) -> tuple[MonitoringStore, EntityOutcomes]:
    """Write decisions and waiting reports; return the store, and the job that attributes them."""
    database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
    store = MonitoringStore(database, lambda: DAY * DAY_MS)
    output = OutputBins("score", score_grid_edges(), probability=True)
    store.save_version(VersionBins(MODEL, "7", 7, (output,)))
    _write_days(folder / "decisions", database, keys, persons)
    # Reports about persons of whom most were scored in the horizon.
    rng = np.random.default_rng(seed)
    for first in range(0, reports, INSERTED_ROWS):
        number = min(INSERTED_ROWS, reports - first)
        ages_ms = rng.integers(0, 3 * DAY_MS, number).tolist()
        rows = [
            {
                "model": MODEL,
                "entity_ids": f"C{person}",
                "name": OUTCOME,
                "value": 1.0,
                "event_unix_ms": DAY * DAY_MS - age_ms,
                "received_unix_ms": DAY * DAY_MS,
                "due_unix_ms": DAY * DAY_MS,
            }
            for person, age_ms in zip(rng.integers(0, persons, number), ages_ms, strict=True)
        ]
        with database.write_transaction() as connection:
            connection.execute(insert(entity_outcomes), rows)
    # The job with the policy of the outcome.
    policies = ReaderPolicies()
    outcome = OutcomePolicy(positive_when=">= 1", horizon=f"{DAYS}d")
    policies.apply({MODEL: MonitoringPolicy(outcomes={OUTCOME: outcome})}, DAY, {}, {})
    decisions = folder / "decisions"
    segments = OutcomeSegments(ScoredRows(decisions, database), store.find_version)
    rows_of = AnsweredRows(decisions, database)
    return store, EntityOutcomes(store, rows_of, segments, policies, lambda: DAY * 86_400.0)


def _write_days(folder: Path, database: MonitoringDatabase, keys: int, persons: int) -> None:
    """Write a file of decisions for each day, as compaction leaves it."""
    vector = ", ".join(["random()::FLOAT"] * INPUTS)
    named = []
    with open_writer() as writer:
        for day in range(DAY - DAYS, DAY):
            name = f"{MODEL}/{day}/part-0.parquet"
            (folder / name).parent.mkdir(parents=True)
            copy_sorted(
                writer,
                f"SELECT hash(i, {day})::UBIGINT AS id_hash, "
                f"encode(printf('%064d', {day * 10**7} + i)) AS prediction_id, "
                "0::UINTEGER AS row, '7' AS version, 1::UTINYINT AS role, false AS holdout, "
                f"({day * DAY_NS} + i * {DAY_NS // keys})::BIGINT AS at_unix_ns, "
                "hash(person)::UBIGINT AS key_hash, 0::UINTEGER AS row_flags, "
                f"[{vector}] AS vector, [random()::FLOAT] AS scores, "
                "['C' || person] AS entity_ids "
                f"FROM (SELECT i, (random() * {persons})::BIGINT AS person "
                f"FROM range({keys}) t(i))",
                folder / name,
            )
            named.append({"name": name, "model": MODEL, "day": day, "rows": keys})
    with database.write_transaction() as connection:
        connection.execute(insert(decision_files), named)
