"""The row of a prediction is found among the decisions of monitoring, which all hosts push."""

from pathlib import Path

import numpy as np
import pytest

from journal.prediction_id import LENGTH
from monitoring.api.decision_policy import day_of_id
from monitoring.cells.decision_rows import SAMPLE_ALL, join_batches, sample_decisions
from monitoring.decisions.decision_store import DecisionStore
from monitoring.explain.retained_rows import FirstDecisions, RetainedDecisions
from monitoring.explain.served_rows import JournalDecisions, ServedDecision
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import ServedBatch
from registry.explanation.errors import NotExplainedError
from tests.monitoring.served import served_batch


def test_a_call_of_another_host_is_found_with_the_rows_of_its_answer(tmp_path: Path) -> None:
    """Its shadow has the same id, and is no answer."""
    database = MonitoringDatabase(f"sqlite:///{tmp_path}/monitoring.sqlite")
    decisions = DecisionStore(tmp_path / "decisions", database, day_of_id)
    store = MonitoringStore(database, lambda: 0, decisions.add_batch)
    batch = served_batch(np.random.default_rng(1), 1)
    shadow = ServedBatch.FromString(batch.SerializeToString())
    shadow.version, shadow.role = "8", bytes([5])
    blocks = [
        block
        for joined in join_batches([shadow, batch])
        for block in sample_decisions(joined, np.zeros(1, dtype=np.bool_), SAMPLE_ALL)
    ]
    name = pb.JournalName(gateway="gateway-2")
    store.push(pb.CellBatch(journal=name, sequence=1, decisions=blocks))
    # The journals of this host have nothing of it.
    source = FirstDecisions([JournalDecisions(tmp_path), RetainedDecisions(decisions)])
    found = source.find_decision(batch.prediction_ids)
    assert found is not None
    assert (found.model, found.version) == ("churn", "7")
    vectors = np.frombuffer(batch.vectors, "<f4").reshape(-1, batch.width)
    np.testing.assert_array_equal(found.vectors, vectors)
    np.testing.assert_array_equal(found.scores[:, 0], np.frombuffer(batch.scores, "<f4"))
    assert source.find_decision(bytes(LENGTH)) is None
    store.close()


class Unreadable:
    """A source that cannot be searched."""

    def find_decision(self, _prediction_id: bytes) -> ServedDecision | None:
        """Raise what a source raises."""
        raise NotExplainedError("the journal is too long")


def test_a_source_that_cannot_be_searched_is_an_error_if_no_other_has_the_call(
    tmp_path: Path,
) -> None:
    """It hides no other source, and is not forgotten."""
    with pytest.raises(NotExplainedError, match="too long"):
        FirstDecisions([Unreadable(), JournalDecisions(tmp_path)]).find_decision(bytes(LENGTH))
