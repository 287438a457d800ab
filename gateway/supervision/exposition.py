"""Workers' snapshots, summed by slot, as Prometheus text. Runs in the supervisor only.

The files of prometheus_client's multiprocess mode are never removed and are slow to read
(prometheus_client #275, #347, #367). Here each worker sends its counts to the supervisor, which
serves them with the label `worker`, the slot. The counts of a worker that has ended stay with its
slot, so a total never goes back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.telemetry.metrics import (
    FAMILIES,
    ROW_EDGES,
    SECONDS_EDGES,
    SERIES_MAX,
    STALL_EDGES,
    Family,
)
from journal.retention import JournalUse

Snapshot = Mapping[str, Any]
"""The return value of Metrics.snapshot: {family: [[labels, value], ...]}.

A worker may add the key `statistics`: the state of its parts, for /statistics. It is no metric.
"""

HISTOGRAM_EDGES: dict[str, tuple[float, ...]] = {
    "turnout_call_seconds": SECONDS_EDGES,
    "turnout_batch_rows": ROW_EDGES,
    "turnout_loop_stall_seconds": STALL_EDGES,
}

SUPERVISOR_FAMILIES: dict[str, Family] = {
    "turnout_loop_lag_seconds": Family(
        "gauge", (), "Longest delay of the worker's event loop in the last 15 s."
    ),
    "turnout_worker_rss_bytes": Family("gauge", (), "Resident memory."),
    "turnout_worker_restarts": Family("counter", ("cause",), "Workers replaced, by cause."),
}
"""Families whose values the supervisor measures itself, for each worker."""

HOST_FAMILIES: dict[str, Family] = {
    "turnout_workers": Family("gauge", ("state",), "Workers by state."),
    "turnout_journal_bytes": Family("gauge", ("kind",), "Bytes of the journal's segments."),
    "turnout_journal_unread_bytes": Family(
        "gauge", (), "Bytes of segments beyond a bound that wait for a reader of the journal."
    ),
    "turnout_journal_days_left": Family(
        "gauge",
        (),
        "Days until the journal's bound of bytes, or the end of the disk, is reached at the pace "
        "of the last day; the days kept, where age deletes before that.",
    ),
    "turnout_journal_segments_deleted": Family(
        "counter",
        ("kind", "cause"),
        "Segments of the journal that were deleted, by age or size, or unread for a full disk.",
    ),
}
"""Families of the host, without the label `worker`."""


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the gateway at one moment. The supervisor's loop builds it; it never changes."""

    slots: int = 0
    serving: int = 0
    """Slots whose worker has opened the port."""
    leaving: bool = False
    """Whether a stop was requested, so that clients should go elsewhere."""
    connected: int = 0
    """Slots whose worker serves and receives deployments from the registry."""
    workers: tuple[Mapping[str, Any], ...] = ()
    """The rows of /workers: pid, slot, state, age_s, rss_bytes, ..."""
    statistics: tuple[Mapping[str, Any], ...] = ()
    """The rows of /statistics: slot, pid, and the statistics in the worker's newest snapshot."""
    counts: Mapping[str, tuple[Snapshot, ...]] = field(default_factory=dict)
    """worker label -> snapshots to sum: those of the slot's earlier workers, then the living ones,
    the newest last."""
    lags_s: Mapping[str, float] = field(default_factory=dict)
    """worker label -> longest loop lag of the last LAG_SAMPLES heartbeats, in seconds."""
    restarts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(worker label, cause) -> number of workers replaced."""
    journal: JournalUse | None = None
    """The journal at the last look; None before the first."""
    segments_deleted: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(kind, cause) -> segments of the journal that this supervisor deleted."""


def sum_snapshots(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Return one snapshot: counters and histograms are summed, a gauge is that of the last snapshot
    which has it. Unknown families, as of another version's worker, are left out.
    """
    totals: dict[str, dict[tuple[str, ...], Any]] = {}
    for snapshot in snapshots:
        for name, series in snapshot.items():
            family = FAMILIES.get(name)
            if family is None:
                continue
            total = totals.setdefault(name, {})
            for labels, value in series:
                key = tuple(labels)
                if key not in total and len(total) >= 2 * SERIES_MAX:
                    continue
                total[key] = _sum(family, total.get(key), value)
    return {
        name: [[list(key), value] for key, value in total.items()] for name, total in totals.items()
    }


def bounded_past(past: Snapshot, living: Sequence[Snapshot]) -> dict[str, Any]:
    """Return the counts of ended workers without the series that only they have, in each family
    with SERIES_MAX of them: those of versions that left the deployments.
    """
    kept = {}
    for name, series in past.items():
        named = {tuple(labels) for snapshot in living for labels, _ in snapshot.get(name, ())}
        full = len(series) >= SERIES_MAX
        kept[name] = [item for item in series if not full or tuple(item[0]) in named]
    return kept


def without_gauges(snapshot: Snapshot) -> dict[str, Any]:
    """Return *snapshot* without its gauges, which mean nothing once the worker has ended."""
    return {
        name: series
        for name, series in snapshot.items()
        if name in FAMILIES and FAMILIES[name].kind != "gauge"
    }


def _sum(family: Family, total: Any, value: Any) -> Any:  # noqa: ANN401  a number, or a list of numbers
    if total is None or family.kind == "gauge":
        return value
    if family.kind == "counter":
        return total + value
    return [a + b for a, b in zip(total, value, strict=True)]


class Exposition(Collector):
    """Turns the newest report into Prometheus text."""

    def __init__(self, report: Callable[[], Report]) -> None:
        self._report = report
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the exposition in text format 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect (Collector)."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield every family, with `worker` after its own labels (Collector)."""
        report = self._report()
        sums = {worker: sum_snapshots(snapshots) for worker, snapshots in report.counts.items()}
        for name, family in FAMILIES.items():
            metric = _metric(name, family)
            for worker, snapshot in sums.items():
                for labels, value in snapshot.get(name, ()):
                    _add_samples(name, metric, [*labels, worker], value)
            yield metric
        yield from self._worker_metrics(report)
        yield from self._host_metrics(report)

    @staticmethod
    def _worker_metrics(report: Report) -> Iterable[Metric]:
        lag, rss, restarts = (_metric(name, family) for name, family in SUPERVISOR_FAMILIES.items())
        for worker, seconds in report.lags_s.items():
            lag.add_metric([worker], seconds)
        for row in report.workers:
            if row["state"] == "serving":
                rss.add_metric([str(row["slot"])], row["rss_bytes"])
        for (worker, cause), count in report.restarts.items():
            restarts.add_metric([cause, worker], count)
        return [lag, rss, restarts]

    @staticmethod
    def _host_metrics(report: Report) -> Iterable[Metric]:
        workers, size, unread, days_left, deleted = (
            _metric(name, family) for name, family in HOST_FAMILIES.items()
        )
        states: dict[str, int] = dict.fromkeys(("starting", "spare", "serving", "draining"), 0)
        for row in report.workers:
            states[row["state"]] += 1
        for state, count in states.items():
            workers.add_metric([state], count)
        if report.journal is not None:
            for kind, total in report.journal.kind_bytes.items():
                size.add_metric([kind], total)
            unread.add_metric([], report.journal.unread_bytes)
            days_left.add_metric([], report.journal.days_left)
        for (kind, cause), count in report.segments_deleted.items():
            deleted.add_metric([kind, cause], count)
        return [workers, size, unread, days_left, deleted]


def _metric(name: str, family: Family) -> Any:  # noqa: ANN401  no add_metric in common
    labels = [*family.labels] if name in HOST_FAMILIES else [*family.labels, "worker"]
    kinds = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return kinds[family.kind](name, family.documentation, labels=labels)


def _add_samples(name: str, metric: Any, labels: list[str], value: Any) -> None:  # noqa: ANN401
    if name not in HISTOGRAM_EDGES:
        metric.add_metric(labels, value)
        return
    *counts, total = value
    bounds = [*(repr(float(edge)) for edge in HISTOGRAM_EDGES[name]), "+Inf"]
    # Prometheus' buckets are cumulative; the snapshot's are not.
    cumulative = 0
    buckets = []
    for bound, count in zip(bounds, counts, strict=True):
        cumulative += count
        buckets.append((bound, cumulative))
    metric.add_metric(labels, buckets, total)
