"""The work of monitoring for one day, in a process of its own that prints what it cost.

    python -m benchmarks.daily.day_work FOLDER DAY MODELS ROWS KEYS TURNS

The day is a Sunday, on which the week is looked at too. What a reader does to make counts and rows
is not measured; what monitoring does with them is.
"""

import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np

from benchmarks.daily.day_history import DAY_NS, HOURS, OUTCOMES_A_DAY, rows_of_time
from benchmarks.daily.day_versions import (
    HOLDOUT_PART,
    OUTCOME,
    POLICY,
    DayVersion,
    block_of,
    cells_of_hour,
    day_versions,
)
from journal.prediction_id import hash_model_name
from monitoring.api.component import COMPACT_ALL, day_looks
from monitoring.api.decision_policy import day_of_id
from monitoring.cells.cell import cell_to_proto
from monitoring.cells.decision_rows import DecisionRows
from monitoring.decisions.day_rows import DayRows
from monitoring.decisions.decision_store import SMALLEST_SIZE_ROWS, DecisionStore
from monitoring.looks.uplift_look import ConfiguredHoldout
from monitoring.store.cell_rows import Retention
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookStore
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.watch.day_runner import DayRunner, KnownVersions
from protos import monitoring_pb2 as pb
from protos.predict_pb2 import PRODUCTION

DAY_MS = 86_400_000
PUSH, COMPACT, LOOK, ROLL_UP = "push", "compact", "look", "roll up"
SCRAP = "made up"
"""What the benchmark itself does."""
RETAINED_DAYS = 120
"""Days for which decisions are kept."""


class WorkOfDay:
    """Monitoring in one folder, and what each kind of its work has cost so far."""

    def __init__(self, folder: Path, day: int, versions: list[DayVersion]) -> None:
        self.day = day
        self._versions = versions
        self._database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self._decisions = DecisionStore(folder / "decisions", self._database, day_of_id)
        self._store = MonitoringStore(
            self._database, lambda: self._end_ms, self._decisions.add_batch
        )
        self._looks = LookStore(self._database)
        self._rows = DayRows(folder / "decisions", self._database)
        self._end_ms = (day + 1) * DAY_MS + 60_000
        self._sequence = 0
        self.wall_s: dict[str, float] = defaultdict(float)
        self.cpu_s: dict[str, float] = defaultdict(float)
        for version in versions:
            self._store.save_version(version.bins)

    def take_calls(self, rows: int, keys: int, turns: int) -> None:
        """Push a day of *rows* predictions and *keys* kept rows of each model, and write files.

        turns  times a day at which counts come and files are written.
        """
        rng = np.random.default_rng(self.day)
        for turn in range(turns):
            for version in self._versions:
                with self._measured(SCRAP):
                    start_ns = self.day * DAY_NS + turn * DAY_NS // turns
                    part = rows_of_time(rng, start_ns, DAY_NS // turns, keys // turns)
                    reports = OUTCOMES_A_DAY // turns
                    batch = self._batch(rng, version, rows // turns, part, reports)
                with self._measured(PUSH):
                    self._store.push(batch)
            with self._measured(COMPACT):
                everything = turn % COMPACT_ALL == COMPACT_ALL - 1
                self._decisions.compact(rows_min=1 if everything else SMALLEST_SIZE_ROWS)

    def look(self) -> None:
        """Look at the day, with every look that the component has."""
        known = KnownVersions(
            {(version.model, "1"): version.facts for version in self._versions},
            {version.model: POLICY for version in self._versions},
        )
        runner = DayRunner(
            self._store,
            self._looks,
            self._rows,
            day_looks(self._database, self._store, self._rows, _holdout_of),
            lambda: self._end_ms / 1_000,
        )
        with self._measured(LOOK):
            assert runner.due_day() == self.day
            served = runner.versions_of(self.day, known.policies)
            assert runner.look_at(self.day, served, known)
            assert runner.due_day() is None

    def roll_up(self) -> int:
        """Roll up the hours that are due, and return how many cells they were."""
        with self._measured(ROLL_UP):
            rolled = self._store.roll_up((self.day + 1) * HOURS, Retention())
            self._decisions.delete_before(self.day - RETAINED_DAYS)
        return rolled

    def result(self) -> dict[str, object]:
        """Return what the work has cost: seconds and the most memory, as JSON values."""
        figures = self._looks.read_figures(self.day, self.day + 1)
        return {
            "wall_s": dict(self.wall_s),
            "cpu_s": dict(self.cpu_s),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024,
            "figures": len(figures),
            "alarms": len(self._looks.unreported_alarms()),
        }

    def _batch(
        self,
        rng: np.random.Generator,
        version: DayVersion,
        rows: int,
        kept: DecisionRows,
        reports: int,
    ) -> pb.CellBatch:
        """Return what the reader pushes of one model: counts, kept rows and reports about them."""
        hour = int(kept.at_unix_ns[0]) // (3_600 * 10**9)
        counted = cells_of_hour(rng, version, hour, rows)
        self._sequence += 1
        return pb.CellBatch(
            journal=pb.JournalName(gateway="gateway-1"),
            sequence=self._sequence,
            cells=[cell_to_proto(key, counts) for key, counts in counted],
            decisions=[block_of(version, self.day, kept)],
            outcomes=_reports(kept, version, reports, self._end_ms),
            newest_unix_ns=(self.day + 1) * DAY_MS * 10**6,
        )

    @contextmanager
    def _measured(self, work: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s[work] += time.perf_counter() - wall
        self.cpu_s[work] += time.process_time() - cpu


def _holdout_of(_model: str, _first: int, _last: int) -> ConfiguredHoldout:
    return ConfiguredHoldout(HOLDOUT_PART)


def _reports(
    rows: DecisionRows, version: DayVersion, number: int, received_ms: int
) -> list[pb.OutcomeEvent]:
    """Return reports about the first *number* rows."""
    return [
        pb.OutcomeEvent(
            id_digest=blake2b(rows.prediction_id[row].tobytes(), digest_size=16).digest(),
            model_hash=hash_model_name(version.model),
            version_digest=version.digest8,
            role=PRODUCTION,
            predicted_unix_ms=int(rows.at_unix_ns[row]) // 10**6,
            key_hash=int(rows.key_hash[row]),
            score=float(rows.scores[row, 0]),
            name=OUTCOME,
            value=1.0,
            received_unix_ms=received_ms,
            event_unix_ms=received_ms,
        )
        for row in range(min(number, len(rows)))
    ]


if __name__ == "__main__":
    day, models, rows, keys, turns = map(int, sys.argv[2:])
    work = WorkOfDay(Path(sys.argv[1]), day, day_versions(models))
    work.take_calls(rows, keys, turns)
    work.look()
    rolled_up = work.roll_up()
    print(json.dumps({**work.result(), "rolled_up": rolled_up}))
