"""From served batches and reports, with real prediction ids, to cohorts and to labelled rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from monitoring.cells.cell import cell_to_proto
from monitoring.cells.counting import CellCounter
from monitoring.cells.decision_rows import (
    SAMPLE_ALL,
    join_batches,
    sample_decisions,
    unpack_decisions,
)
from monitoring.cohorts.customers import read_customers
from monitoring.cohorts.labelled_rows import read_labelled
from monitoring.cohorts.outcome_cells import EVERYBODY, HOLDOUT, read_cohort
from monitoring.fold.id_fields import IdFields
from protos.journal_pb2 import ServedBatch
from registry.watching.policy import OutcomePolicy
from tests.monitoring.outcome_world import DayRowsInMemory, OutcomeWorld
from tests.monitoring.served import AT_NS, KEY, churn_bins, outcome_record, served_batch

DAY = AT_NS // (86_400 * 10**9)
KNOWN = OutcomePolicy(positive_when=">= 1", horizon="30d")
FIELDS = IdFields(lambda: KEY)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OutcomeWorld]:
    """Return an empty store."""
    opened = OutcomeWorld(tmp_path)
    yield opened
    opened.store.close()


def push_served(world: OutcomeWorld, batch: ServedBatch) -> DayRowsInMemory:
    """Count a batch as the journal's reader does, and return its rows as decisions have them."""
    counter = CellCounter(lambda *_: churn_bins(), FIELDS.holdout_of)
    counter.add(batch)
    world.push(cells=[cell_to_proto(*item) for item in counter.take_cells().items()])
    rows = DayRowsInMemory()
    for joined in join_batches([batch]):
        for block in sample_decisions(joined, FIELDS.holdout_of(joined.prediction_ids), SAMPLE_ALL):
            rows.add(block.day, unpack_decisions(block), block.version)
    return rows


def test_reports_find_their_rows_in_cells_and_in_decisions(world: OutcomeWorld) -> None:
    """Roles, the holdout and the digests of ids are the same on both ways."""
    batch = served_batch(np.random.default_rng(1), 120, rows_max=1)
    saved = push_served(world, batch)
    ids = [batch.prediction_ids[64 * call : 64 * call + 64] for call in range(120)]
    reports = {call: float(call % 3 == 0) for call in range(0, 120, 2)}
    world.push(
        outcomes=[
            FIELDS.event_of(outcome_record(ids[call], value, after_ms=9 * 86_400_000))
            for call, value in reports.items()
        ]
    )
    holdout = FIELDS.holdout_of(batch.prediction_ids)
    output = churn_bins().outputs[0]
    # By cells.
    cells = read_cohort(world.cohorts, "churn", "7", (DAY, DAY), "churned", KNOWN, output)
    for scope, chosen in ((EVERYBODY, np.ones(120, np.bool_)), (HOLDOUT, holdout)):
        cohort = cells.cohort(scope, 30)
        inside = [value for call, value in reports.items() if chosen[call]]
        assert cohort.scored.sum() == chosen.sum()
        assert cohort.positives.sum() == sum(inside)
        assert cohort.negatives.sum() == len(inside) - sum(inside)
    assert cells.delays()[9] == len(reports)
    # By decisions.
    rows = read_labelled(saved, world.cohorts, "churn", "7", (DAY, DAY), "churned")
    assert rows is not None
    assert rows.holdout.tolist() == holdout.tolist()
    scores = np.frombuffer(batch.scores, "<f4")
    assert rows.scores[:, 0].tolist() == scores.tolist()
    assert {
        int(row): value for row, value in enumerate(rows.values) if rows.reported[row]
    } == reports
    # By customers, whose names are the entities of the calls.
    customers = read_customers(
        saved, world.cohorts, "churn", "7", (DAY, DAY), "churned", KNOWN, "acted"
    )
    assert customers is not None
    assert customers.names == tuple(batch.entity_ids)
    known = {call: value for call, value in enumerate(customers.outcomes) if np.isfinite(value)}
    assert known == reports
