"""Workers' snapshots, added up by slot, as Prometheus text. Runs in the supervisor only.

Files of prometheus_client's multiprocess mode are never removed and are read slowly; here each
worker sends its counts and one place serves them, keyed by slot (research: prometheus_client #275,
#347, #367). A worker that is gone leaves its counts to its slot, so a total never goes back.
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

from gateway.telemetry.metrics import FAMILIES, ROW_EDGES, SECONDS_EDGES, SERIES_MAX, Family

Snapshot = Mapping[str, Any]
"""What Metrics.snapshot returns: {family: [[labels, value], ...]}."""

HISTOGRAM_EDGES: dict[str, tuple[float, ...]] = {
    "turnout_call_seconds": SECONDS_EDGES,
    "turnout_batch_rows": ROW_EDGES,
}

SUPERVISOR_FAMILIES: dict[str, Family] = {
    "turnout_loop_lag_seconds": Family(
        "gauge", (), "Latest that the worker's event loop turned, over the last 15 s."
    ),
    "turnout_worker_rss_bytes": Family("gauge", (), "Resident memory."),
    "turnout_worker_restarts": Family("counter", ("cause",), "Workers replaced, and why."),
    "turnout_workers": Family("gauge", ("state",), "Workers by state; without `worker`."),
}
"""What the supervisor itself knows."""


@dataclass(frozen=True, slots=True)
class Report:
    """One moment of the gateway, made by the supervisor's loop and never changed after."""

    slots: int = 0
    serving: int = 0
    workers: tuple[Mapping[str, Any], ...] = ()
    """What /workers shows: pid, slot, state, age_s, rss_bytes, ..."""
    counts: Mapping[str, tuple[Snapshot, ...]] = field(default_factory=dict)
    """worker label -> snapshots to add up: the slot's dead, then its living, the newest last."""
    lags_s: Mapping[str, float] = field(default_factory=dict)
    restarts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(worker label, cause) -> how many."""


def sum_snapshots(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Return one snapshot: counters and histograms summed, gauges of the last that has them."""
    total: dict[str, dict[tuple[str, ...], Any]] = {}
    for snapshot in snapshots:
        for name, series in snapshot.items():
            family = FAMILIES.get(name)
            if family is None:
                continue
            held = total.setdefault(name, {})
            for labels, value in series:
                key = tuple(labels)
                if key not in held and len(held) >= 2 * SERIES_MAX:
                    continue
                held[key] = _sum(family, held.get(key), value)
    return {n: [[list(key), value] for key, value in s.items()] for n, s in total.items()}


def without_gauges(snapshot: Snapshot) -> dict[str, Any]:
    """Return what of *snapshot* outlives its worker: everything but gauges."""
    return {n: s for n, s in snapshot.items() if n in FAMILIES and FAMILIES[n].kind != "gauge"}


def _sum(family: Family, total: Any, value: Any) -> Any:  # noqa: ANN401  a number or a list of them
    if total is None or family.kind == "gauge":
        return value
    if family.kind == "counter":
        return total + value
    return [a + b for a, b in zip(total, value, strict=True)]


class Exposition(Collector):
    """Prometheus' view of the newest report."""

    def __init__(self, report: Callable[[], Report]) -> None:
        self._report = report
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the exposition, text format 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not collect."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield every family, with `worker` after its own labels."""
        report = self._report()
        sums = {worker: sum_snapshots(snapshots) for worker, snapshots in report.counts.items()}
        for name, family in FAMILIES.items():
            metric = _metric(name, family)
            for worker, snapshot in sums.items():
                for labels, value in snapshot.get(name, ()):
                    _add_samples(name, metric, [*labels, worker], value)
            yield metric
        yield from self._supervised(report)

    @staticmethod
    def _supervised(report: Report) -> Iterable[Metric]:
        lag, rss, restarts, workers = (
            _metric(name, fam) for name, fam in SUPERVISOR_FAMILIES.items()
        )
        for worker, seconds in report.lags_s.items():
            lag.add_metric([worker], seconds)
        states: dict[str, int] = dict.fromkeys(("starting", "spare", "serving", "draining"), 0)
        for row in report.workers:
            states[row["state"]] += 1
            if row["state"] == "serving":
                rss.add_metric([str(row["slot"])], row["rss_bytes"])
        for (worker, cause), count in report.restarts.items():
            restarts.add_metric([cause, worker], count)
        for state, count in states.items():
            workers.add_metric([state], count)
        return [lag, rss, restarts, workers]


def _metric(name: str, family: Family) -> Any:  # noqa: ANN401  the three have no common add_metric
    labels = [*family.labels] if name == "turnout_workers" else [*family.labels, "worker"]
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
    running = 0
    buckets = []
    for bound, count in zip(bounds, counts, strict=True):
        running += count
        buckets.append((bound, running))
    metric.add_metric(labels, buckets, total)
