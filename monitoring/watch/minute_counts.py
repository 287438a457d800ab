"""What arrived since the last look of five minutes: rows without values, and minutes with calls.

It is kept in memory. A process that is killed loses five minutes of it, which are a look without
data and no false alarm.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from monitoring.cells.cell import ROW_FLAGS, ROWS, CellCounts, feature_column
from monitoring.cells.version_bins import VersionBins
from monitoring.looks.watched_version import FLAGS, missing_share, unknown_share
from protos import monitoring_pb2 as pb
from protos import window_pb2
from protos.journal_pb2 import UNSEEN_SHADOW

MINUTE_S = 60
ANSWERING = frozenset({window_pb2.ARM_PRODUCTION, window_pb2.ARM_CANARY, window_pb2.ARM_PINNED})

FindBins = Callable[[str, int], VersionBins | None]
"""Returns the bins of (model, digest8), or None where the version was not saved."""
VersionKey = tuple[str, str, bool]
"""Model, version label, and whether the rows are a shadow's."""


@dataclass(slots=True)
class ShareHits:
    """Hits and rows of the shares of one version, by gateway host."""

    rows: Counter[str] = field(default_factory=Counter)
    """Gateway host -> rows that arrived from it."""
    hits: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Share -> host -> hits."""

    def total(self, share: str) -> tuple[int, int]:
        """Return (hits, rows) of all hosts."""
        return self.hits[share].total(), self.rows.total()


@dataclass(frozen=True, slots=True)
class ArrivedCounts:
    """What arrived between two looks."""

    shares: Mapping[VersionKey, ShareHits]
    minutes: Mapping[str, frozenset[int]]
    """Model -> Unix minutes with a call; "" for minutes with a window of any worker."""
    production: Mapping[str, str]
    """Model -> the label of the version that answers as production."""


class MinuteCounts:
    """Collects what arrives. Any thread may call it.

    find_bins  where the missing values of a column are.
    """

    def __init__(self, find_bins: FindBins) -> None:
        self._find_bins = find_bins
        self._bins: dict[tuple[str, int], VersionBins] = {}
        self._lock = threading.Lock()
        self._shares: dict[VersionKey, ShareHits] = defaultdict(ShareHits)
        self._minutes: dict[str, set[int]] = defaultdict(set)
        self._production: dict[str, str] = {}

    def note_cells(self, batch: pb.CellBatch) -> None:
        """Add the rows of a batch that was stored."""
        host = batch.journal.gateway
        for cell in batch.cells:
            if cell.segment:
                continue  # the cell of all rows has its rows too
            counts = CellCounts.from_columns(cell.columns)
            bins = self._known_bins(cell.model, cell.version_digest)
            if not counts.rows:
                continue
            key = cell.model, cell.version, cell.role == UNSEEN_SHADOW
            with self._lock:
                shares = self._shares[key]
                shares.rows[host] += int(counts.counts(ROWS)[0])
                for share, hits in share_hits(counts, bins):
                    shares.hits[share][host] += hits

    def note_windows(self, batch: window_pb2.WindowBatch) -> None:
        """Add the minutes of a gateway worker's windows."""
        with self._lock:
            self._minutes[""].add(batch.sent_unix_ns // 10**9 // MINUTE_S)
            for window in batch.windows:
                if window.arm in ANSWERING and (window.calls.answered or window.calls.refused):
                    self._minutes[window.model].add(window.second // MINUTE_S)
                if window.arm == window_pb2.ARM_PRODUCTION:
                    self._production[window.model] = window.version

    def take_minutes(self) -> dict[str, set[int]]:
        """Return the minutes that came since the last time."""
        with self._lock:
            minutes, self._minutes = self._minutes, defaultdict(set)
        return minutes

    def take_shares(self) -> dict[VersionKey, ShareHits]:
        """Return the shares that came since the last time."""
        with self._lock:
            shares, self._shares = self._shares, defaultdict(ShareHits)
        return shares

    @property
    def production(self) -> dict[str, str]:
        """Model -> the label of the version that answers as production."""
        with self._lock:
            return dict(self._production)

    def _known_bins(self, model: str, digest8: int) -> VersionBins | None:
        key = model, digest8
        if key not in self._bins:
            found = self._find_bins(model, digest8)
            if found is None:
                return None
            self._bins[key] = found
        return self._bins[key]


def share_hits(counts: CellCounts, bins: VersionBins | None) -> Iterator[tuple[str, int]]:
    """Yield each share of rows with its hits in one cell."""
    flags = counts.counts(ROW_FLAGS, 16)
    for share, flag in FLAGS.items():
        yield share, int(flags[flag.bit_length() - 1])
    for feature in bins.features if bins else ():
        column = counts.counts(feature_column(feature.name), feature.size)
        yield missing_share(feature.name), int(column[feature.missing_index])
        if feature.categories:
            yield unknown_share(feature.name), int(column[feature.unknown_index])
