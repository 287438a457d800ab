"""Pushes days of the virtual year to a store, as readers and gateways of two hosts push them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from monitoring.store.call_minutes import ANY_MODEL
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookStore
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.window_counts import WindowBatchRows
from monitoring.watch.minute_counts import MinuteCounts
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import UNSEEN_SHADOW, ServedBatch
from protos.predict_pb2 import CANARY, MISSING, PRODUCTION

HOSTS = ("gateway-1", "gateway-2")
DAY_MS = 86_400_000
DAY_MINUTES = 1_440
MINUTE_NS = 60 * 10**9
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


@dataclass(frozen=True, eq=False, slots=True)
class ServedDay:
    """The calls of one model on one day, each with its prediction id."""

    people: PeopleOfDay
    versions: ServedVersions
    effects: DayEffects
    ids: NDArray[np.void]
    canary: NDArray[np.bool_]
    """(N,) whether the canary answered."""
    lost: NDArray[np.bool_]
    """(N,) whether the journal of the host lost it."""
    scores: dict[str, NDArray[np.float32]]
    """Version label -> (N,) scores of all calls by it."""

    def scored(self) -> Iterator[tuple[YearVersion, NDArray[np.bool_], int]]:
        """Yield each version with the (N,) calls that it scored, and its role."""
        yield self.versions.production, ~self.canary, PRODUCTION
        if self.versions.canary is not None:
            yield self.versions.canary, self.canary, CANARY
        if self.versions.shadow is not None:
            yield self.versions.shadow, np.ones_like(self.canary), UNSEEN_SHADOW


def serve_day(
    rng: np.random.Generator, people: PeopleOfDay, versions: ServedVersions, effects: DayEffects
) -> ServedDay:
    """Return the calls of a day as its versions scored them."""
    canary = (people.key_hash % np.uint64(10)) == 0
    canary &= versions.canary is not None
    lost = (rng.random(len(canary)) < effects.lost) & (people.host == 0)
    return ServedDay(
        people,
        versions,
        effects,
        _prediction_ids(people, versions, canary),
        canary,
        lost,
        {it.label: it.scores(people.vectors, people.group) for it in versions.all},
    )


class YearStore:
    """The store of monitoring in a folder, and what waits to be reported to it."""

    def __init__(self, folder: Path) -> None:
        self.database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self.decisions = DecisionStore(folder / "decisions", self.database, day_of_id)
        self.counts = MinuteCounts(lambda model, digest8: self.store.find_version(model, digest8))
        self.store = MonitoringStore(
            self.database,
            lambda: self.now_ms,
            self.decisions.add_batch,
            self.counts.note_cells,
        )
        self.looks = LookStore(self.database)
        self.rows = DayRows(folder / "decisions", self.database)
        self.now_ms = 0
        """The virtual clock, Unix milliseconds."""
        self._sequences = dict.fromkeys(HOSTS, 0)
        self._windows = dict.fromkeys(HOSTS, 0)
        self._bins: dict[tuple[str, str], VersionBins] = {}
        self._reports: dict[int, list[pb.OutcomeEvent]] = defaultdict(list)
        """Day -> the reports that come on it."""

    def save_version(self, version: YearVersion) -> None:
        """Note the bins of a version."""
        self.store.save_version(version.facts.bins)
        self._bins[version.model.name, version.label] = version.facts.bins

    def push_windows(self, served: Sequence[ServedDay]) -> None:
        """Push what gateways say of a day: rows, and minutes with calls."""
        minutes: dict[str, set[int]] = {}
        for host, name in enumerate(HOSTS):
            rows: Counter[tuple[str, str, int]] = Counter()
            for day in served:
                # Coverage is looked at by the day, so all windows are those of noon.
                noon = int(day.people.at_unix_ns[0]) // DAY_NS * 24 + 12
                for version, scored, _ in day.scored():
                    number = int((scored & (day.people.host == host)).sum())
                    rows[version.model.name, version.label, noon] += number
            self._windows[name] += 1
            batch = WindowBatchRows(f"{name}/0/1", self._windows[name], rows, rows, noon)
            self.store.add_windows([batch])
        for day in served:
            called = np.unique(day.people.at_unix_ns // MINUTE_NS).tolist()
            minutes[day.versions.production.model.name] = set(called)
            minutes.setdefault(ANY_MODEL, set()).update(_minutes_of_day(called[0]))
        self.store.add_call_minutes(minutes)

    def push_calls(self, served: Sequence[ServedDay], start_ns: int, end_ns: int) -> None:
        """Push the calls of [start_ns, end_ns), as the reader of each host does."""
        self.now_ms = end_ns // 10**6
        for host, name in enumerate(HOSTS):
            counter = CellCounter(lambda model, label, _: self._bins[model, label], _holdout)
            blocks: list[pb.DecisionBlock] = []
            for day in served:
                at = day.people.at_unix_ns
                read = (at >= start_ns) & (at < end_ns) & (day.people.host == host) & ~day.lost
                for version, scored, role in day.scored():
                    batch = _served_batch(day, version, scored & read, role)
                    counter.add(batch)
                    holdout = _holdout(batch.prediction_ids)
                    blocks += sample_decisions(batch, holdout, SAMPLE_ALL)
            cells = [cell_to_proto(key, counts) for key, counts in counter.take_cells().items()]
            self._push_batch(name, end_ns, cells=cells, decisions=blocks)

    def push_reports(self, day: int) -> None:
        """Push the reports of outcomes that come on a Unix day, and say that it was read."""
        self.now_ms = (day + 1) * DAY_MS + 60_000
        self._push_batch(HOSTS[0], (day + 1) * DAY_NS, outcomes=self._reports.pop(day, []))
        self._push_batch(HOSTS[1], (day + 1) * DAY_NS)

    def push_damage(self, day: int) -> None:
        """Push that a piece of the journal of the first host was lost."""
        self.now_ms = day * DAY_MS + DAY_MS // 2
        damage = pb.JournalDamage(segment="served-1", offset=10, next_offset=500, kind="damaged")
        self._push_batch(HOSTS[0], day * DAY_NS, damages=[damage])

    def plan_report(self, report: pb.OutcomeEvent) -> None:
        """Keep a report until the day on which it comes."""
        self._reports[report.received_unix_ms // DAY_MS].append(report)

    def _push_batch(self, host: str, newest_unix_ns: int, **parts: object) -> None:
        self._sequences[host] += 1
        self.store.push(
            pb.CellBatch(
                journal=pb.JournalName(gateway=host),
                sequence=self._sequences[host],
                newest_unix_ns=newest_unix_ns,
                **parts,  # type: ignore[arg-type]  # cells, decisions, outcomes or damages
            )
        )


def _minutes_of_day(minute: int) -> range:
    """Return the Unix minutes of the day of one."""
    first = minute // DAY_MINUTES * DAY_MINUTES
    return range(first, first + DAY_MINUTES)


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
    day: ServedDay, version: YearVersion, rows: NDArray[np.bool_], role: int
) -> ServedBatch:
    """Return calls as the journal has them."""
    people, number = day.people, int(rows.sum())
    names = np.array(people.entity_ids, dtype=object)[rows]
    return ServedBatch(
        model=version.model.name,
        version=version.label,
        version_digest=version.digest8,
        at_unix_ns=people.at_unix_ns[rows].tobytes(),
        role=np.full(number, role, dtype=np.uint8).tobytes(),
        row_count=np.ones(number, dtype="<u4").tobytes(),
        prediction_ids=day.ids[rows].tobytes(),
        key_hash=people.key_hash[rows].tobytes(),
        row_flags=(people.missing[rows] * MISSING).astype("<u4").tobytes(),
        width=people.vectors.shape[1],
        vectors=people.vectors[rows].tobytes(),
        outputs=1,
        scores=day.scores[version.label][rows].tobytes(),
        entity_ids=names.tolist(),
    )


def _holdout(ids: bytes) -> NDArray[np.bool_]:
    """Return (C,) which calls are of the control group, from prediction ids."""
    return (np.frombuffer(ids, np.uint8).reshape(-1, ID.itemsize)[:, 1] & HOLDOUT_BIT) > 0
