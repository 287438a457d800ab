"""Finds the row that a prediction id names among the decisions that monitoring keeps.

They come from every gateway host, while the journals that control can read are those of its own.
"""

from collections.abc import Sequence

import numpy as np

from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import MonitoringError
from monitoring.explain.served_rows import DecisionSource, ServedDecision
from protos.journal_pb2 import UNSEEN_SHADOW
from registry.explanation.errors import NotExplainedError


class RetainedDecisions:
    """Finds decisions in the store of monitoring (DecisionSource)."""

    def __init__(self, store: DecisionStore) -> None:
        self._store = store

    def find_decision(self, prediction_id: bytes) -> ServedDecision | None:
        """Return the call that an id names, or None."""
        try:
            found = self._store.find_decisions(prediction_id)
        except MonitoringError as error:
            raise NotExplainedError(f"decisions cannot be searched: {error}") from error
        for decision in found:
            if decision.role != UNSEEN_SHADOW:
                return ServedDecision(
                    model=decision.model,
                    version=decision.version,
                    version_start="",
                    at_unix_ns=decision.at_unix_ns,
                    vectors=np.array([row.vector for row in decision.rows], dtype=np.float32),
                    scores=np.array([row.scores for row in decision.rows], dtype=np.float32),
                )
        return None


class FirstDecisions:
    """Asks several sources, one after the other (DecisionSource)."""

    def __init__(self, sources: Sequence[DecisionSource]) -> None:
        self._sources = sources

    def find_decision(self, prediction_id: bytes) -> ServedDecision | None:
        """Return the call of the first source that has it; raise only if no source has it."""
        problem: NotExplainedError | None = None
        for source in self._sources:
            try:
                found = source.find_decision(prediction_id)
            except NotExplainedError as error:
                problem = error
                continue
            if found is not None:
                return found
        if problem is not None:
            raise problem
        return None
