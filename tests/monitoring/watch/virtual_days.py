"""Days of a made-up version, pushed to a real store as the reader of a journal pushes them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monitoring.api.decision_policy import day_of_id
from monitoring.cells.cell import CellCounts, CellKey, cell_to_proto
from monitoring.cells.decision_rows import DecisionRows, pack_decisions
from monitoring.cells.version_bins import FeatureBins, OutputBins, VersionBins
from monitoring.decisions.day_rows import DayRows
from monitoring.decisions.decision_store import DecisionStore
from monitoring.looks.day_looks import SealedFacts
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookStore
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from stats.score_grid import score_grid_edges
from stats.score_scale import OutputReference, ScoreScale

DIGEST8 = int.from_bytes(b"version7", "little")
FIRST_DAY = 20_787
"""The Unix day of a Monday."""
EDGES = np.array([-1.28, -0.84, -0.52, -0.25, 0, 0.25, 0.52, 0.84, 1.28], dtype=np.float32)
SCORE_EDGES = np.linspace(0.1, 0.9, 9).astype(np.float32)
NAMES = ("usage:data_gb", "usage:calls", "billing:amount")
DAY_NS = 86_400 * 10**9


def facts(version: str = "7", model: str = "churn") -> SealedFacts:
    """Return what a version with three normal inputs says, fitted on 20,000 rows."""
    features = tuple(FeatureBins(name, EDGES) for name in NAMES)
    output = OutputBins("churned", score_grid_edges(), probability=True)
    rows = 2_000
    return SealedFacts(
        model=model,
        version=version,
        digest="11" * 32,
        bins=VersionBins(model, version, DIGEST8, (output,), features),
        reference={
            "task": "binary",
            "decision_threshold": 0.5,
            "score": {"name": "churned", "edges": SCORE_EDGES.tolist(), "counts": [rows] * 10},
            "features": [
                {"name": name, "edges": EDGES.tolist(), "counts": [rows] * 10, "missing": 0}
                for name in NAMES
            ],
        },
        scale=ScoreScale([OutputReference("churned", SCORE_EDGES, 1.0, 0.0)], "binary", 0.5),
        views={name: name.partition(":")[0] for name in NAMES},
        card={"metrics": {"auc": {"value": 0.8}, "brier": {"value": 0.15}}},
    )


class VirtualDays:
    """A store with the looks of one folder, and the days that are pushed to it."""

    def __init__(self, folder: Path) -> None:
        database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self.decisions = DecisionStore(folder / "decisions", database, day_of_id)
        self.store = MonitoringStore(database, lambda: self.at_ms, self.decisions.add_batch)
        self.looks = LookStore(database)
        self.rows = DayRows(folder / "decisions", database)
        self._sequence = 0
        self.at_ms = 0
        """When the newest day was pushed, Unix milliseconds."""

    def push(
        self,
        day: int,
        vectors: NDArray[np.float32],
        *,
        role: int = 1,
        version: str = "7",
        model: str = "churn",
        scores: NDArray[np.float32] | None = None,
    ) -> None:
        """Push a day on which each person calls twice, at noon and later with other values."""
        # Persons with a score each.
        persons = len(vectors)
        keys = np.arange(persons, dtype=np.uint64) * np.uint64(7919)
        if scores is None:
            scores = np.linspace(0.001, 0.999, persons, dtype=np.float32)[:, None]
        at = np.full(persons, day * DAY_NS + DAY_NS // 2)
        block = pb.DecisionBlock(
            model=model, version=version, version_digest=DIGEST8, day=day, entities=1
        )
        # The second calls come first in the block, and must not be counted.
        rows = DecisionRows(
            prediction_id=np.zeros(2 * persons, dtype="V64"),
            row=np.zeros(2 * persons, dtype=np.uint32),
            at_unix_ns=np.concatenate([at + 10**9, at]),
            role=np.full(2 * persons, role, dtype=np.uint8),
            holdout=np.zeros(2 * persons, dtype=np.uint8),
            key_hash=np.concatenate([keys, keys]),
            row_flags=np.zeros(2 * persons, dtype=np.uint32),
            vectors=np.concatenate([np.full_like(vectors, 9.0), vectors]),
            scores=np.concatenate([scores, scores]),
            entity_ids=tuple(str(key) for key in (*keys, *keys)),
        )
        self.at_ms = (day * 24 + 13) * 3_600_000
        # The cells say that the version was in service.
        key = CellKey(model, version, DIGEST8, role, False, "", day * 24 + 12)
        counts = CellCounts({"rows": np.array([2 * persons]), "calls": np.array([2 * persons])})
        self._sequence += 1
        self.store.push(
            pb.CellBatch(
                journal=pb.JournalName(gateway="gateway-1"),
                sequence=self._sequence,
                cells=[cell_to_proto(key, counts)],
                decisions=[pack_decisions(rows, block)],
            )
        )
