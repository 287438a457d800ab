"""Pushes days of the virtual year to a store, as the readers of two gateway hosts push them."""

from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.year.year_people import DAY_NS, DayEffects, PeopleOfDay
from benchmarks.year.year_versions import YearVersion
from journal.prediction_id import hash_model_name
from monitoring.api.decision_policy import day_of_id
from monitoring.cells.cell import cell_to_proto
from monitoring.cells.counting import CellCounter
from monitoring.cells.decision_rows import SAMPLE_ALL, sample_decisions
from monitoring.cells.version_bins import VersionBins
from monitoring.decisions.day_rows import DayRows
from monitoring.decisions.decision_store import DecisionStore
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookStore
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import UNSEEN_SHADOW, ServedBatch
from protos.predict_pb2 import CANARY, MISSING, PRODUCTION

HOSTS = ("gateway-1", "gateway-2")
DAY_MS = 86_400_000
HOLDOUT_BIT = 0x80
ID = np.dtype(
    [
        ("format", "u1"),
        ("role", "u1"),
        ("slot", "<u2"),
        ("sequence", "<u4"),
        ("model", "<u8"),
        ("version", "<u8"),
        ("revision", "<u8"),
        ("time", "<u8"),
        ("key", "<u8"),
        ("boot", "<u8"),
        ("mac", "<u8"),
    ]
)
"""A prediction id that is not sealed, as journal.prediction_id describes it."""


@dataclass(frozen=True, slots=True)
class ServedVersions:
    """The versions of a model on one day."""

    production: YearVersion
    canary: YearVersion | None = None
    """It answers a tenth of the customers."""
    shadow: YearVersion | None = None
    """It scores copies of all calls."""

    @property
    def all(self) -> list[YearVersion]:
        """Every version with rows on the day."""
        return [it for it in (self.production, self.canary, self.shadow) if it is not None]


class YearStore:
    """The store of monitoring in a folder, and what waits to be reported to it."""

    def __init__(self, folder: Path) -> None:
        database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self.decisions = DecisionStore(folder / "decisions", database, day_of_id)
        self.store = MonitoringStore(database, lambda: self.now_ms, self.decisions.add_batch)
        self.looks = LookStore(database)
        self.rows = DayRows(folder / "decisions", database)
        self.now_ms = 0
        """The virtual clock, Unix milliseconds."""
        self._sequences = dict.fromkeys(HOSTS, 0)
        self._bins: dict[tuple[str, str], VersionBins] = {}
        self._reports: dict[int, list[pb.OutcomeEvent]] = defaultdict(list)
        """Day -> the reports that come on it."""

    def save_version(self, version: YearVersion) -> None:
        """Note the bins of a version."""
        self.store.save_version(version.facts.bins)
        self._bins[version.model.name, version.label] = version.facts.bins

    def push_day(
        self, day: int, people: PeopleOfDay, versions: ServedVersions, effects: DayEffects
    ) -> None:
        """Push one model's calls of a Unix day, and plan the reports of their outcomes."""
        rng = np.random.default_rng([day, hash_model_name(versions.production.model.name) % 2**32])
        canary = (people.key_hash % np.uint64(10)) == 0
        canary &= versions.canary is not None
        ids = _prediction_ids(people, versions, canary)
        batches = [(versions.production, ~canary, PRODUCTION)]
        if versions.canary is not None:
            batches.append((versions.canary, canary, CANARY))
        if versions.shadow is not None:
            everybody = np.ones(len(canary), dtype=np.bool_)
            batches.append((versions.shadow, everybody, UNSEEN_SHADOW))
        # What a host's journal lost was scored and not read.
        lost = (rng.random(len(canary)) < effects.lost) & (people.host == 0)
        for version, rows, role in batches:
            scores = version.scores(people.vectors, people.group)
            for host, name in enumerate(HOSTS):
                of_host = rows & (people.host == host) & ~lost
                self._push(day, name, _served_batch(people, ids, scores, version, of_host, role))
            if role != UNSEEN_SHADOW:
                self._plan_reports(rng, people, ids, scores, version, rows, role, effects)

    def push_reports(self, day: int) -> None:
        """Push the reports of outcomes that come on a Unix day."""
        reports = self._reports.pop(day, [])
        if reports:
            self._push_batch(HOSTS[0], (day + 1) * DAY_NS - 1, outcomes=reports)

    def end_day(self, day: int) -> None:
        """Say that both readers have read the day to its end, and set the clock behind it."""
        self.now_ms = (day + 1) * DAY_MS + 60_000
        for host in HOSTS:
            self._push_batch(host, (day + 1) * DAY_NS)
        self.decisions.compact()

    def _push(self, day: int, host: str, batch: ServedBatch) -> None:
        counter = CellCounter(lambda model, version, _: self._bins[model, version], _holdout)
        counter.add(batch)
        cells = [cell_to_proto(key, counts) for key, counts in counter.take_cells().items()]
        blocks = sample_decisions(batch, _holdout(batch.prediction_ids), SAMPLE_ALL)
        self.now_ms = (day + 1) * DAY_MS - 1
        self._push_batch(host, (day + 1) * DAY_NS - 1, cells=cells, decisions=list(blocks))

    def _push_batch(self, host: str, newest_unix_ns: int, **parts: object) -> None:
        self._sequences[host] += 1
        self.store.push(
            pb.CellBatch(
                journal=pb.JournalName(gateway=host),
                sequence=self._sequences[host],
                newest_unix_ns=newest_unix_ns,
                **parts,  # type: ignore[arg-type]  # cells, decisions or outcomes
            )
        )

    def _plan_reports(
        self,
        rng: np.random.Generator,
        people: PeopleOfDay,
        ids: NDArray[np.void],
        scores: NDArray[np.float32],
        version: YearVersion,
        rows: NDArray[np.bool_],
        role: int,
        effects: DayEffects,
    ) -> None:
        """Draw the outcomes of answers, and plan the day on which each is reported."""
        model = version.model
        # An act changes the probability of the outcome.
        threshold = np.quantile(scores, 1 - model.acted) if len(scores) else 0.0
        acted = (scores >= threshold) & ~people.holdout & (model.acted > 0)
        acted |= people.holdout & (rng.random(len(rows)) < effects.acts_on_holdout)
        adds = model.acting_adds if effects.acting_adds is None else effects.acting_adds
        has_outcome = rng.random(len(rows)) < people.probability + adds * acted
        for row in np.flatnonzero(has_outcome & rows).tolist():
            event = pb.OutcomeEvent(
                id_digest=blake2b(ids[row].tobytes(), digest_size=16).digest(),
                model_hash=hash_model_name(model.name),
                version_digest=version.digest8,
                role=role,
                holdout=bool(people.holdout[row]),
                predicted_unix_ms=int(people.at_unix_ns[row]) // 10**6,
                key_hash=int(people.key_hash[row]),
                score=float(scores[row]),
                name=model.outcome,
                value=1.0,
            )
            # Most outcomes come in the first half of the horizon.
            delay = int(rng.beta(1.5, 3.0) * model.horizon_days) + effects.late_days
            self._plan(event, delay, rng)
            if rng.random() < effects.doubled:
                self._plan(event, delay + 1, rng)
            if rng.random() < effects.corrected:
                event.value = 0.0
                self._plan(event, delay + 3, rng)

    def _plan(self, event: pb.OutcomeEvent, delay: int, rng: np.random.Generator) -> None:
        report = pb.OutcomeEvent()
        report.CopyFrom(event)
        day = event.predicted_unix_ms // DAY_MS + delay + 1
        report.received_unix_ms = day * DAY_MS + int(rng.integers(DAY_MS))
        report.event_unix_ms = report.received_unix_ms
        self._reports[day].append(report)


def _prediction_ids(
    people: PeopleOfDay, versions: ServedVersions, canary: NDArray[np.bool_]
) -> NDArray[np.void]:
    ids = np.zeros(len(people.person), dtype=ID)
    ids["format"] = 3
    ids["role"] = np.where(canary, CANARY, PRODUCTION) | (people.holdout * HOLDOUT_BIT)
    ids["sequence"] = np.arange(len(ids))
    ids["model"] = hash_model_name(versions.production.model.name)
    ids["version"] = versions.production.digest8
    if versions.canary is not None:
        ids["version"][canary] = versions.canary.digest8
    ids["time"] = (people.at_unix_ns // 10**6).astype(np.uint64) | np.uint64(1 << 48)
    ids["key"] = people.key_hash
    ids["boot"] = people.host
    return ids.view("V64")


def _served_batch(
    people: PeopleOfDay,
    ids: NDArray[np.void],
    scores: NDArray[np.float32],
    version: YearVersion,
    rows: NDArray[np.bool_],
    role: int,
) -> ServedBatch:
    number = int(rows.sum())
    names = np.array(people.entity_ids, dtype=object)[rows]
    return ServedBatch(
        model=version.model.name,
        version=version.label,
        version_digest=version.digest8,
        at_unix_ns=people.at_unix_ns[rows].tobytes(),
        role=np.full(number, role, dtype=np.uint8).tobytes(),
        row_count=np.ones(number, dtype="<u4").tobytes(),
        prediction_ids=ids[rows].tobytes(),
        key_hash=people.key_hash[rows].tobytes(),
        row_flags=(people.missing[rows] * MISSING).astype("<u4").tobytes(),
        width=people.vectors.shape[1],
        vectors=people.vectors[rows].tobytes(),
        outputs=1,
        scores=scores[rows].tobytes(),
        entity_ids=names.tolist(),
    )


def _holdout(ids: bytes) -> NDArray[np.bool_]:
    """Return (C,) which calls are of the control group, from prediction ids."""
    return (np.frombuffer(ids, np.uint8).reshape(-1, ID.itemsize)[:, 1] & HOLDOUT_BIT) > 0
