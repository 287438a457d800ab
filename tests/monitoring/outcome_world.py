"""A store of monitoring with cohorts whose outcomes are known, for the tests of looks."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from journal.prediction_id import hash_model_name
from monitoring.cells.cell import CALLS, ROWS, CellCounts, CellKey, cell_to_proto, score_column
from monitoring.cells.decision_rows import DecisionRows
from monitoring.cells.outcome_columns import DELAY_DAYS, OutcomeKind, id_digest, outcome_column
from monitoring.looks.day_looks import DayLook, DayOfVersion, SealedFacts
from monitoring.store.cell_rows import digest_text
from monitoring.store.cohort_store import CohortStore
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookOutcome, LookStore, StoredFigure
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.tables import outcomes
from protos import monitoring_pb2 as pb
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.score_grid import SCORE_BINS, bins_by_edges, score_grid_edges
from stats.score_scale import OutputReference, ScoreScale
from tests.monitoring.served import DIGEST8, EDGES, churn_bins

FIRST_DAY = 20_000
"""Unix day of a Friday in 2024."""
DAY_MS = 86_400_000
CHURN_DAYS = 3
"""Horizon and grace of CHURN."""
CHURN = OutcomePolicy(positive_when=">= 1", horizon="2d", grace="1d", absent="negative")

Floats = NDArray[np.float64]


def churn_facts(card: Mapping[str, Any] | None = None, **reference: object) -> SealedFacts:
    """Return version 7 of churn, of two classes."""
    metrics = {"auc": {"value": 0.75}, "brier": {"value": 0.19}}
    return SealedFacts(
        model="churn",
        version="7",
        digest="00" * 32,
        bins=churn_bins(),
        reference={"task": "binary", "decision_threshold": 0.5, **reference},
        scale=ScoreScale([OutputReference("churned", EDGES, 1.0, 0.0)], "binary", 0.5),
        views={},
        card={"label": "churned", "metrics": metrics} if card is None else card,
    )


def churn_day(
    day: int,
    policy: MonitoringPolicy | None = None,
    facts: SealedFacts | None = None,
    *,
    shadow: bool = False,
) -> DayOfVersion:
    """Return one day of version 7, whose policy has the outcome "churned"."""
    policy = policy or MonitoringPolicy(outcomes={"churned": CHURN})
    return DayOfVersion(facts=facts or churn_facts(), policy=policy, day=day, shadow=shadow)


class OutcomeWorld:
    """Cells, outcomes and decisions in SQLite."""

    def __init__(self, folder: Path) -> None:
        self.database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self.store = MonitoringStore(self.database, lambda: FIRST_DAY * DAY_MS)
        self.cohorts = CohortStore(self.database)
        self.looks = LookStore(self.database)
        self.store.save_version(churn_bins())
        self._sequence = 0

    def push(self, **fields: object) -> None:
        """Push one batch."""
        self._sequence += 1
        journal = pb.JournalName(gateway="gateway-1")
        self.store.push(
            pb.CellBatch(journal=journal, sequence=self._sequence, **fields)  # type: ignore[arg-type]
        )

    def add_cohort(
        self,
        day: int,
        scores: Floats,
        positive: NDArray[np.bool_],
        reported: NDArray[np.bool_] | None = None,
        *,
        role: int = 1,
        holdout: bool = False,
        delays: NDArray[np.int64] | None = None,
        scored: bool = True,
        hour: int = 12,
    ) -> None:
        """Add rows with their outcomes, counted as readers count them.

        reported  which rows have a report; None: the positive ones.
        delays    days until each report; None: 1.
        scored    False: the rows are there already, and these are further reports of them.
        """
        # The rows by score.
        reported = positive if reported is None else reported
        bins = bins_by_edges(scores.astype(np.float32), score_grid_edges())
        rows = np.array([len(scores) * scored])
        counts = CellCounts({CALLS: rows, ROWS: rows})
        size = SCORE_BINS + 4
        counts.add(score_column("churned"), np.bincount(bins, minlength=size - 1) * scored)
        # Their outcomes, and when they were reported.
        for part, chosen in (("positive", reported & positive), ("negative", reported & ~positive)):
            counts.add(outcome_column("churned", part), np.bincount(bins[chosen], minlength=size))
        late = np.ones(len(scores), np.int64) if delays is None else delays
        counts.add(
            outcome_column("churned", "delay_days"),
            np.bincount(late[reported], minlength=DELAY_DAYS),
        )
        events = np.zeros(len(OutcomeKind), np.int64)
        events[OutcomeKind.COUNTED] = int(reported.sum())
        counts.add(outcome_column("churned", "events"), events)
        key = CellKey("churn", "7", DIGEST8, role, holdout, "", day * 24 + hour)
        self.push(cells=[cell_to_proto(key, counts)])

    def add_reports(self, events: Iterable[pb.OutcomeEvent]) -> None:
        """Add rows of reported outcomes as pushes leave them, without the counts of cells."""
        rows = [
            {
                "id_digest": event.id_digest,
                "row": event.row,
                "name": event.name,
                "model": "churn",
                "version": "7",
                "digest8": digest_text(event.version_digest),
                "role": event.role,
                "holdout": event.holdout,
                "segment": "",
                "predicted_unix_ms": event.predicted_unix_ms,
                "score": event.score if event.HasField("score") else None,
                "value": event.value,
                "received_unix_ms": event.received_unix_ms,
                "key_hash": digest_text(event.key_hash),
            }
            for event in events
        ]
        with self.database.write_transaction() as connection:
            if rows:
                connection.execute(insert(outcomes), rows)


FiguresByName = dict[tuple[str, int, int], StoredFigure]


def figures_by_name(found: Iterable[LookOutcome]) -> FiguresByName:
    """Return (name, last day, days) -> the newest figure of everybody."""
    return {
        (item.name, item.last_day, item.days): item
        for outcome in found
        for item in outcome.figures
        if not item.segment
    }


def report(
    prediction_id: bytes,
    at_ms: int,
    value: float = 1.0,
    *,
    name: str = "churned",
    score: float | None = 0.5,
    after_ms: int = DAY_MS,
    **fields: object,
) -> pb.OutcomeEvent:
    """Return a report about a prediction of version 7."""
    event = {
        "id_digest": id_digest(prediction_id),
        "model_hash": hash_model_name("churn"),
        "version_digest": DIGEST8,
        "role": 1,
        "predicted_unix_ms": at_ms,
        "name": name,
        "value": value,
        "event_unix_ms": at_ms + after_ms,
        "received_unix_ms": at_ms + after_ms,
        "model": "churn",
    }
    if score is not None:
        event["score"] = score
    return pb.OutcomeEvent(**{**event, **fields})  # type: ignore[arg-type]


def decision_rows(
    day: int,
    customers: list[str],
    scores: Floats,
    *,
    holdout: NDArray[np.bool_] | None = None,
    vectors: NDArray[np.float32] | None = None,
    role: int = 1,
    first: int = 0,
    rows_a_call: int = 1,
) -> DecisionRows:
    """Return scored rows of one day, each of a call of its own unless *rows_a_call* is more."""
    rows = len(customers)
    ids = np.array(
        [b"%d-%d" % (day, first + number // rows_a_call) + bytes(64) for number in range(rows)],
        dtype="S64",
    )
    ids = np.array([text.ljust(64, b"\x01") for text in ids.tolist()], dtype="S64").view("V64")
    return DecisionRows(
        prediction_id=ids,
        row=(np.arange(rows) % rows_a_call).astype(np.uint32),
        at_unix_ns=np.full(rows, (day * 24 + 12) * 3_600 * 10**9, np.int64),
        role=np.full(rows, role, np.uint8),
        holdout=np.zeros(rows, np.uint8) if holdout is None else holdout.astype(np.uint8),
        key_hash=np.arange(rows, dtype=np.uint64),
        row_flags=np.zeros(rows, np.uint32),
        vectors=np.zeros((rows, 3), np.float32) if vectors is None else vectors,
        scores=np.atleast_2d(scores.astype(np.float32).T).T.copy(),
        entity_ids=tuple(customers),
    )


class DayRowsInMemory:
    """Scored rows in memory, by day (DayRowSource)."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, DecisionRows]] = []

    def add(self, day: int, rows: DecisionRows, version: str = "7") -> None:
        """Keep rows of a version."""
        self.rows.append((day, version, rows))

    def day_rows(self, model: str, day: int) -> Iterator[tuple[str, DecisionRows]]:
        """Yield the rows of a day."""
        for kept, version, rows in self.rows:
            if kept == day and model == "churn":
                yield version, rows


def report_rows(
    rows: DecisionRows, values: Mapping[int, float], name: str = "churned", **fields: object
) -> list[pb.OutcomeEvent]:
    """Return reports about some of the rows, by their position."""
    return [
        report(
            rows.prediction_id[row].tobytes(),
            int(rows.at_unix_ns[row]) // 10**6,
            value,
            name=name,
            score=float(rows.scores[row, 0]),
            row=int(rows.row[row]),
            holdout=bool(rows.holdout[row]),
            **fields,
        )
        for row, value in values.items()
    ]


def draw_scores(seed: int, rows: int = 800) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return scores like those of a model of churn."""
    return np.random.default_rng(seed).beta(2, 5, rows)


def add_days(
    world: OutcomeWorld,
    first: int,
    count: int,
    *,
    shift: float = 0.0,
    noise: float = 0.0,
    rows: int = 800,
    delay: int = 0,
    holdout: bool = False,
) -> None:
    """Add calibrated cohorts, or some whose outcomes are shifted in log-odds or follow less."""
    for day in range(first, first + count):
        scores = draw_scores(day, rows)
        rng = np.random.default_rng(day + 10**6)
        margins = np.log(scores / (1 - scores)) + shift + noise * rng.normal(size=rows)
        positive = rng.random(rows) < 1 / (1 + np.exp(-margins))
        delays = rng.integers(delay, delay + 2, rows)
        world.add_cohort(day, scores, positive, delays=delays, holdout=holdout)


def look_through(
    look: DayLook,
    first: int,
    last: int,
    state: Mapping[str, Any] | None = None,
    facts: SealedFacts | None = None,
) -> list[LookOutcome]:
    """Look at each day as the runner does, with the state of the day before as JSON."""
    found: list[LookOutcome] = []
    for number in range(first, last + 1):
        saved = json.loads(json.dumps(found[-1].state if found else state or {}))
        found.append(look.look(churn_day(number, facts=facts), saved))
    return found
