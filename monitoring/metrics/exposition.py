"""What the page shows, as Prometheus text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring.metrics.headlines import Headline
from monitoring.store.waiting_outcomes import OutcomeBacklog

SEVERITIES = {1: "review", 2: "warning", 3: "page"}
"""turnout.v1.Incident.Severity as labels."""


@dataclass(frozen=True, slots=True)
class ControlFamily:
    """One metric family of the page."""

    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    documentation: str


CONTROL_FAMILIES: dict[str, ControlFamily] = {
    "turnout_figure": ControlFamily(
        "gauge",
        ("model", "version", "kind", "name"),
        "Newest headline figure of a version in service.",
    ),
    "turnout_incidents_open": ControlFamily("gauge", ("severity",), "Open incidents."),
    "turnout_alarms": ControlFamily("counter", ("model", "kind"), "Alarms that were raised."),
    "turnout_coverage_share": ControlFamily(
        "gauge",
        ("model", "version"),
        "Rows of the last 24 hours that were counted, of those that gateways say they scored.",
    ),
    "turnout_reader_lag_seconds": ControlFamily(
        "gauge", ("gateway",), "Seconds since the newest batch of a journal's reader was stored."
    ),
    "turnout_reader_backlog_bytes": ControlFamily(
        "gauge", ("gateway",), "Bytes that the reader had not read at its newest batch."
    ),
    "turnout_look_lag_seconds": ControlFamily(
        "gauge",
        ("model", "version", "look"),
        "Seconds since the end of the period that was looked at last, of versions in service.",
    ),
    "turnout_waiting_outcomes": ControlFamily(
        "gauge", ("model",), "Outcomes by entity whose predictions are not found yet."
    ),
    "turnout_waiting_outcomes_oldest_seconds": ControlFamily(
        "gauge", ("model",), "Seconds since the oldest of them was received."
    ),
    "turnout_monitoring_store_errors": ControlFamily(
        "counter", (), "Writes and reads that the database of monitoring refused."
    ),
    "turnout_monitoring_read_seconds": ControlFamily(
        "gauge", (), "Seconds since these numbers were read from the database."
    ),
}


@dataclass(frozen=True, slots=True)
class ControlReadings:
    """What was read at one moment; it never changes."""

    at_s: float = 0.0
    """Unix seconds; 0: nothing was read yet."""
    figures: tuple[Headline, ...] = ()
    incidents: Mapping[int, int] = field(default_factory=dict)
    """Severity -> open incidents."""
    alarms: Mapping[tuple[str, str], int] = field(default_factory=dict)
    coverage: Mapping[tuple[str, str], float] = field(default_factory=dict)
    readers: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """Gateway -> (Unix seconds of its newest batch, backlog in bytes)."""
    looks: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    """(model, version, look) -> Unix seconds until which it has looked."""
    outcome_backlogs: Mapping[str, OutcomeBacklog] = field(default_factory=dict)
    """Model -> its outcomes by entity that wait."""
    store_errors: int = 0


Series = Iterable[tuple[Sequence[str], float]]


def exposition(readings: ControlReadings, now_s: float) -> bytes:
    """Return the page in text format 0.0.4, with ages as of *now_s*."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Readings(readings, now_s))
    return generate_latest(registry)


class _Readings(Collector):
    """Yields every family once."""

    def __init__(self, readings: ControlReadings, now_s: float) -> None:
        self._readings = readings
        self._now_s = now_s

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect (Collector)."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield each family with its series (Collector)."""
        for name, series in self._series().items():
            family = CONTROL_FAMILIES[name]
            kinds: dict[str, Any] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
            metric = kinds[family.kind](name, family.documentation, labels=family.labels)
            for labels, value in series:
                metric.add_metric(labels, value)
            yield metric

    def _series(self) -> dict[str, Series]:
        read, now = self._readings, self._now_s
        open_now = {name: read.incidents.get(number, 0) for number, name in SEVERITIES.items()}
        readers = read.readers.items()
        return {
            "turnout_figure": [
                ((item.model, item.version, item.kind, item.name), item.value)
                for item in read.figures
            ],
            "turnout_incidents_open": [((name,), count) for name, count in open_now.items()],
            "turnout_alarms": list(read.alarms.items()),
            "turnout_coverage_share": list(read.coverage.items()),
            "turnout_reader_lag_seconds": [((name,), now - at_s) for name, (at_s, _) in readers],
            "turnout_reader_backlog_bytes": [((name,), size) for name, (_, size) in readers],
            "turnout_look_lag_seconds": [
                (key, now - until_s) for key, until_s in read.looks.items()
            ],
            "turnout_waiting_outcomes": [
                ((model,), item.number) for model, item in read.outcome_backlogs.items()
            ],
            "turnout_waiting_outcomes_oldest_seconds": [
                ((model,), now - item.oldest_unix_ms / 1e3)
                for model, item in read.outcome_backlogs.items()
            ],
            "turnout_monitoring_store_errors": [((), read.store_errors)],
            "turnout_monitoring_read_seconds": [((), now - read.at_s)] if read.at_s else [],
        }
