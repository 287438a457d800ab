"""Outcomes: which are counted, where, and that a correction takes away what it replaces."""

import math

import numpy as np
import pytest

from monitoring.cells.cell import CellCounts
from monitoring.cells.outcome_columns import (
    DELAY_DAYS,
    CountedOutcome,
    OutcomeKind,
    delay_counts,
    event_counts,
    outcome_counts,
    outcome_key,
    refuse_outcome,
)
from monitoring.cells.version_bins import OutputBins, VersionBins
from protos.monitoring_pb2 import OutcomeEvent
from stats.score_grid import bins_by_edges, score_grid_edges
from tests.monitoring.served import AT_NS, DIGEST8, churn_bins

AT_MS = AT_NS // 10**6
DAY_MS = 86_400_000


def event(**fields: object) -> OutcomeEvent:
    """Return a report a day after its prediction."""
    given = {
        "id_digest": b"d" * 16,
        "version_digest": DIGEST8,
        "role": 1,
        "predicted_unix_ms": AT_MS,
        "name": "churned",
        "value": 1.0,
        "event_unix_ms": AT_MS + DAY_MS,
        "received_unix_ms": AT_MS + DAY_MS,
    }
    return OutcomeEvent(**given | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, None),
        ({"event_unix_ms": 0}, None),
        ({"value": math.nan}, OutcomeKind.NO_NUMBER),
        ({"value": -math.inf}, OutcomeKind.NO_NUMBER),
        ({"forged": True}, OutcomeKind.ORPHAN),
        ({"id_digest": b""}, OutcomeKind.BY_ENTITY),
        ({"event_unix_ms": AT_MS - DAY_MS}, OutcomeKind.BEFORE_PREDICTION),
        ({"event_unix_ms": AT_MS + 2 * DAY_MS}, OutcomeKind.FUTURE),
    ],
)
def test_outcome_that_cannot_be_counted_has_a_kind(
    fields: dict[str, object], kind: OutcomeKind | None
) -> None:
    """Clocks may differ by five minutes; more is no outcome of this prediction."""
    assert refuse_outcome(event(**fields)) == kind


@pytest.mark.parametrize("score", [0.0, 0.25, 1.0, None])
def test_outcome_is_in_the_bin_of_its_score(score: float | None) -> None:
    """An id without a score is counted in the entry behind the bins."""
    bins = churn_bins()
    key = outcome_key(event(), "churn", "7")
    counts = outcome_counts(CountedOutcome(key, "churned", score, 1.0), bins)
    (name, vector), *others = counts.columns.items()
    assert name == "outcome:churned:positive"
    assert not others
    expected = bins.outputs[0].size
    if score is not None:
        expected = int(bins_by_edges(np.array([score], np.float32), score_grid_edges())[0])
    assert np.flatnonzero(vector).tolist() == [expected]
    assert key.hour == AT_NS // (3_600 * 10**9)


def test_correction_leaves_nothing_of_the_first_value() -> None:
    """Sums are taken away bit for bit, because the same numbers were added."""
    bins = VersionBins("m", "1", 1, (OutputBins("y", np.array([0, 5], np.float32), False),))
    key = outcome_key(event(), "m", "1")
    cell, only = CellCounts(), CellCounts()
    first, second = (CountedOutcome(key, "spent", 2.5, value) for value in (7.25, -3.0))
    for outcome, sign in ((first, 1), (first, -1), (second, 1)):
        cell.add_cell(outcome_counts(outcome, bins, sign))
    only.add_cell(outcome_counts(second, bins))
    assert cell == only
    assert cell.columns["outcome:spent:error"].tolist() == [1.0, 5.5, 5.5, 30.25]
    assert cell.columns["outcome:spent:value"].tolist() == [-3.0, 9.0]


def test_delays_and_events_are_counted() -> None:
    """A delay beyond the last entry is in it, and one before the prediction is a delay of 0."""
    for days, entry in ((0, 0), (1, 1), (5_000, DELAY_DAYS - 1), (-1, 0)):
        late = event(received_unix_ms=AT_MS + days * DAY_MS)
        (vector,) = delay_counts(late).columns.values()
        assert np.flatnonzero(vector).tolist() == [entry]
    (vector,) = event_counts("churned", OutcomeKind.ORPHAN).columns.values()
    assert np.flatnonzero(vector).tolist() == [OutcomeKind.ORPHAN]
