"""The versions of the day benchmark: 20 inputs, one probability, 16 cells an hour."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from journal.prediction_id import hash_model_name
from monitoring.cells.cell import (
    CALLS,
    ROW_FLAGS,
    ROWS,
    CellCounts,
    CellKey,
    feature_column,
    score_column,
)
from monitoring.cells.decision_rows import DecisionRows, pack_decisions
from monitoring.cells.outcome_columns import outcome_column
from monitoring.cells.version_bins import FeatureBins, OutputBins, VersionBins
from monitoring.looks.day_looks import SealedFacts
from protos import monitoring_pb2 as pb
from protos.predict_pb2 import CANARY, PRODUCTION
from registry.watching.policy import MonitoringPolicy, OutcomePolicy
from stats.score_grid import SCORE_BINS, score_grid_edges
from stats.score_scale import OutputReference, ScoreScale

WIDTH = 20
NAMES = tuple(f"view_{number // 5}:input_{number}" for number in range(WIDTH))
EDGES = np.array([-1.28, -0.84, -0.52, -0.25, 0, 0.25, 0.52, 0.84, 1.28], dtype=np.float32)
"""Deciles of a standard normal value."""
SCORE_EDGES = np.linspace(0.05, 0.95, 19).astype(np.float32)
OUTCOME = "bought"
SEGMENTS = ("", "new", "settled", "other")
TRAINING_ROWS = 20_000
HOLDOUT_PART = 0.05
CANARY_PART = 0.1
OUTCOME_PART = 0.05
"""Predictions with a positive outcome among those of a cell that is final."""
POLICY = MonitoringPolicy(
    outcomes={
        OUTCOME: OutcomePolicy(
            positive_when=">= 1", horizon="14d", grace="3d", absent="negative", value=40.0, cost=0.5
        )
    }
)


@dataclass(frozen=True, slots=True)
class DayVersion:
    """The production version of one model."""

    model: str
    digest8: int

    @property
    def bins(self) -> VersionBins:
        """How its scores and inputs are counted."""
        features = tuple(FeatureBins(name, EDGES) for name in NAMES)
        output = OutputBins(OUTCOME, score_grid_edges(), probability=True)
        return VersionBins(self.model, "1", self.digest8, (output,), features)

    @property
    def facts(self) -> SealedFacts:
        """What its sealed files say."""
        a_bin = TRAINING_ROWS // 10
        return SealedFacts(
            model=self.model,
            version="1",
            digest=self.digest8.to_bytes(8, "little").hex() * 4,
            bins=self.bins,
            reference={
                "task": "binary",
                "decision_threshold": 0.5,
                "score": {
                    "name": OUTCOME,
                    "edges": SCORE_EDGES.tolist(),
                    "counts": [TRAINING_ROWS // 20] * 20,
                },
                "features": [
                    {"name": name, "edges": EDGES.tolist(), "counts": [a_bin] * 10, "missing": 0}
                    for name in NAMES
                ],
            },
            scale=ScoreScale([OutputReference(OUTCOME, SCORE_EDGES, 1.0, 0.0)], "binary", 0.5),
            views={name: name.partition(":")[0] for name in NAMES},
            card={"metrics": {"auc": {"value": 0.8}, "brier": {"value": 0.15}}},
            entities=("customer",),
        )


def day_versions(models: int) -> list[DayVersion]:
    """Return the versions of *models* models."""
    names = [f"model-{number:02}" for number in range(models)]
    return [DayVersion(name, hash_model_name(name)) for name in names]


def cells_of_hour(
    rng: np.random.Generator, version: DayVersion, hour: int, rows: int, *, final: bool = False
) -> Iterator[tuple[CellKey, CellCounts]]:
    """Yield the cells of one version and hour with *rows* rows in all.

    final  whether the outcomes of the predictions have come.
    """
    for role, holdout, segment in product((PRODUCTION, CANARY), (False, True), SEGMENTS):
        part = CANARY_PART if role == CANARY else 1 - CANARY_PART
        part *= HOLDOUT_PART if holdout else 1 - HOLDOUT_PART
        number = max(1, round(rows * part / len(SEGMENTS)))
        key = CellKey(version.model, "1", version.digest8, role, holdout, segment, hour)
        yield key, _counts(rng, number, final=final)


def _counts(rng: np.random.Generator, rows: int, *, final: bool) -> CellCounts:
    counts = CellCounts({CALLS: np.array([rows]), ROWS: np.array([rows])})
    counts.add(ROW_FLAGS, np.array([0, rows // 50, 0, rows // 50]))
    scores = rng.multinomial(rows, np.full(SCORE_BINS, 1 / SCORE_BINS))
    counts.add(score_column(OUTCOME), scores)
    for name in NAMES:
        counts.add(feature_column(name), rng.multinomial(rows, np.full(10, 0.1)))
    if final:
        counts.add(outcome_column(OUTCOME, "positive"), rng.binomial(scores, OUTCOME_PART))
        delays = rng.multinomial(round(rows * OUTCOME_PART), np.full(14, 1 / 14))
        counts.add(outcome_column(OUTCOME, "delay_days"), delays)
        counts.add(outcome_column(OUTCOME, "events"), np.array([round(rows * OUTCOME_PART)]))
    return counts


def sampled_rows(
    rng: np.random.Generator, at_unix_ns: NDArray[np.int64], keys: NDArray[np.uint64]
) -> DecisionRows:
    """Return one row of each key, at (R,) instants."""
    rows = len(keys)
    identity = np.zeros((rows, 8), dtype="<u8")
    identity[:, 0] = 3  # the format of ids that are not sealed
    identity[:, 1:] = rng.integers(0, 2**63, (rows, 7), dtype=np.uint64)
    identity[:, 4] = at_unix_ns // 10**6
    return DecisionRows(
        prediction_id=identity.view("V64").reshape(rows),
        row=np.zeros(rows, dtype=np.uint32),
        at_unix_ns=at_unix_ns,
        role=np.where(rng.random(rows) < CANARY_PART, CANARY, PRODUCTION).astype(np.uint8),
        holdout=(keys % np.uint64(20) == 0).astype(np.uint8),
        key_hash=keys,
        row_flags=np.zeros(rows, dtype=np.uint32),
        vectors=rng.standard_normal((rows, WIDTH), dtype=np.float32),
        scores=rng.random((rows, 1), dtype=np.float32),
        entity_ids=tuple(f"customer-{key % 10**9}" for key in keys.tolist()),
    )


def block_of(version: DayVersion, day: int, rows: DecisionRows) -> pb.DecisionBlock:
    """Return rows of a day as a reader pushes them."""
    return pack_decisions(
        rows,
        pb.DecisionBlock(
            model=version.model, version="1", version_digest=version.digest8, day=day, entities=1
        ),
    )
