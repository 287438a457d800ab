"""The metrics of one worker: plain dicts and arrays, updated once a batch, sent once a second.

The supervisor turns them into Prometheus text (gateway.supervision.exposition); this module does
not use prometheus_client. A count costs a dict lookup (about .3 us), a latency histogram the
addition of 693 numbers (about 1 us). Touched by the event loop's thread only.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stats.latency import BINS, EDGES_NS

SERIES_MAX = 1_024
"""Series of a family: 30 models, 8 versions, 4 roles. At this bound, the series of versions that no
deployment names are dropped. If it is still full, model and version of a new series are `other`."""

OTHER = "other"

ROW_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
"""Upper bounds (`le`) of the buckets of turnout_batch_rows."""

STALL_EDGES = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
"""Upper bounds (`le`) of the buckets of turnout_loop_stall_seconds, from 100 us on."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family of Prometheus. Each also gets the label `worker`, the slot."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    documentation: str


ARM_LABELS = ("model", "version", "role")

FAMILIES: dict[str, Family] = {
    "turnout_calls": Family("counter", (*ARM_LABELS, "outcome"), "Calls by outcome."),
    "turnout_refusals": Family(
        "counter", ("model", "code", "reason"), "Calls refused, by status code and reason."
    ),
    "turnout_caller_refusals": Family(
        "counter",
        ("caller", "code"),
        "Calls refused for the caller's identity, models or quota, by caller and status code.",
    ),
    "turnout_handshake_refusals": Family(
        "counter", ("reason",), "TLS handshakes that were refused, by reason."
    ),
    "turnout_call_seconds": Family("histogram", ARM_LABELS, "Time from arrival to reply."),
    "turnout_score": Family(
        "counter",
        (*ARM_LABELS, "bin"),
        "Rows by the bin of their score in the version's reference.",
    ),
    "turnout_batch_rows": Family("histogram", (), "Rows of a batch."),
    "turnout_loop_stall_seconds": Family(
        "histogram",
        ("source",),
        "Callbacks that held the worker's event loop for 100 us or longer, by their function.",
    ),
    "turnout_feature_rows": Family(
        "counter",
        ("model", "kind"),
        "Rows whose features were missing, stale, defaulted, degraded or broken.",
    ),
    "turnout_feature_reads": Family(
        "counter", ("outcome",), "Reads of the online store, one a batch, by outcome."
    ),
    "turnout_shadow": Family(
        "counter", ("model", "version", "outcome"), "Shadow copies by outcome."
    ),
    "turnout_shadow_records": Family(
        "counter",
        ("model", "version", "outcome"),
        "Calls that a shadow scored: in the journal, or dropped because the journal was busy.",
    ),
    "turnout_shadow_ends": Family(
        "counter", ("model", "version", "cause"), "Shadow processes that ended, by cause."
    ),
    "turnout_outcomes": Family(
        "counter",
        ("model", "kind"),
        "Outcome reports acknowledged: on_time, late, orphan, by_entity or duplicate.",
    ),
    "turnout_journal_dropped": Family("counter", ("kind",), "Records that the journal dropped."),
    "turnout_journal_healthy": Family(
        "gauge", ("kind",), "1: the journal takes records; 0: it drops them at present."
    ),
    "turnout_windows_dropped": Family(
        "counter", (), "Window batches dropped because a sink did not answer."
    ),
    "turnout_windows_refused": Family(
        "gauge",
        (),
        "Window sinks that count no windows of the worker, for example by reason of its clock.",
    ),
    "turnout_rows_inside": Family("gauge", (), "Rows admitted and not yet answered."),
    "turnout_worker_tasks": Family("gauge", (), "Tasks of the worker's event loop."),
    "turnout_worker_fds": Family("gauge", (), "Open file descriptors of the worker."),
    "turnout_feature_store_state": Family(
        "gauge", (), "Breaker of the feature store: 0 closed (reads are sent), 1 half open, 2 open."
    ),
    "turnout_view_materialised_seconds": Family(
        "gauge", ("view", "edition"), "Age of the newest complete materialise of a view."
    ),
    "turnout_view_newest_row_seconds": Family(
        "gauge", ("view", "edition"), "Age of the newest row of a view that was materialised."
    ),
    "turnout_view_old": Family(
        "gauge",
        ("view", "edition"),
        "1: the newest row has four fifths of the TTL behind it, or no rows were materialised.",
    ),
    "turnout_registry_connected": Family(
        "gauge", (), "1: the worker receives deployments from the registry."
    ),
    "turnout_registry_alarms": Family(
        "gauge", ("kind",), "What the worker does not accept from the registry at present, by kind."
    ),
    "turnout_certificate_days_left": Family(
        "gauge", ("certificate",), "Days until the certificate of gateway or registry ends."
    ),
    "turnout_registry_refusals": Family(
        "counter", ("kind",), "Times that something of the registry was refused, by kind of alarm."
    ),
    "turnout_deployment_revision": Family(
        "gauge", ("model",), "Revision of the deployment that this worker serves."
    ),
}
"""The families of a worker. The supervisor's are in exposition.SUPERVISOR_FAMILIES."""

LabelValues = tuple[str, ...]


_TARGET_SECONDS = tuple(digit * 10.0**power for power in range(-4, 2) for digit in (1, 2, 5))

SECONDS_BINS: NDArray[np.int64] = np.searchsorted(EDGES_NS, np.array(_TARGET_SECONDS) * 1e9 / 1.011)
"""(18,) indexes in EDGES_NS next to 1, 2, 5 x 10^n s. The buckets end at bin edges, so their counts
are exact."""

SECONDS_EDGES: tuple[float, ...] = tuple(float(EDGES_NS[i]) / 1e9 for i in SECONDS_BINS)
"""Upper bounds (`le`) of the buckets of turnout_call_seconds, 100 us to 50 s."""

_STARTS = np.concatenate(([0], SECONDS_BINS + 1))
_LOWER = np.concatenate(([0], EDGES_NS)).astype(np.float64)
_UPPER = np.concatenate((EDGES_NS, EDGES_NS[-1:])).astype(np.float64)
_MIDDLE_S: NDArray[np.float64] = 2.0 * _UPPER * _LOWER / (_UPPER + _LOWER) / 1e9
_MIDDLE_S[0] = float(EDGES_NS[0]) / 2e9


class Metrics:
    """A worker's metrics since its start. Counters only grow."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[LabelValues, int]] = {
            name: {} for name, family in FAMILIES.items() if family.kind == "counter"
        }
        self._gauges: dict[str, dict[LabelValues, float]] = {
            name: {} for name, family in FAMILIES.items() if family.kind == "gauge"
        }
        self._latency: dict[LabelValues, NDArray[np.int64]] = {}
        self._scores: dict[LabelValues, NDArray[np.int64]] = {}
        self._batches = [0] * (len(ROW_EDGES) + 1)
        self._batch_rows = 0
        self._stalls: dict[str, list[float]] = {}
        """Source -> stalls in each bucket of STALL_EDGES, then the sum of their seconds."""
        self._deployed: dict[str, frozenset[str]] | None = None

    def set_deployed(self, versions: Mapping[str, Collection[str]]) -> None:
        """Set the deployed versions by model.

        Other names of models that a caller sends get `other`. Series of other versions stay until
        their family is full.
        """
        self._deployed = {model: frozenset(labels) for model, labels in versions.items()}

    def count_calls(self, model: str, version: str, role: str, outcome: str, n: int) -> None:
        """Add *n* calls of *version*; *outcome* is one word, such as answered or a fault's name."""
        self._add_count("turnout_calls", (self._model_label(model), version, role, outcome), n)

    def count_shadow_end(self, model: str, version: str, cause: str) -> None:
        """Count a shadow process that ended; *cause* is ProcessEnd.cause."""
        self._add_count("turnout_shadow_ends", (self._model_label(model), version, cause), 1)

    def count_latency(self, model: str, version: str, role: str, counts: NDArray[np.int64]) -> None:
        """Add calls by their time from arrival to reply: (BINS,) between stats.latency.EDGES_NS."""
        key = self._bounded_key(self._latency, (self._model_label(model), version, role))
        total = self._latency.get(key)
        if total is None:
            total = self._latency[key] = np.zeros(BINS, dtype=np.int64)
        total += counts

    def count_scores(self, model: str, version: str, role: str, counts: NDArray[np.int64]) -> None:
        """Add rows by score: (J + 3,), the J reference bins, then NaN, +inf and -inf."""
        key = self._bounded_key(self._scores, (self._model_label(model), version, role))
        total = self._scores.get(key)
        # References of different lengths meet only under `other`; there bins add up by position.
        if total is None or len(total) < len(counts):
            wider = np.zeros(len(counts), dtype=np.int64)
            wider[: 0 if total is None else len(total)] += 0 if total is None else total
            total = self._scores[key] = wider
        total[: len(counts)] += counts

    def count_batch(self, rows: int, batches: int = 1) -> None:
        """Count *batches* batches of *rows* rows each."""
        self._batches[bisect_left(ROW_EDGES, rows)] += batches
        self._batch_rows += rows * batches

    def count_stall(self, source: str, held_ns: int) -> None:
        """Count one callback that held the event loop; *source* is its function's name."""
        counts = self._stalls.get(source)
        if counts is None:
            counts = self._stalls[source] = [0] * (len(STALL_EDGES) + 1) + [0.0]
        seconds = held_ns / 1e9
        counts[bisect_left(STALL_EDGES, seconds)] += 1
        counts[-1] += seconds

    def count_refusals(self, model: str, code: str, reason: str, n: int) -> None:
        """Add *n* refused calls; *code* is a status code's name, *reason* the part that refused."""
        self._add_count("turnout_refusals", (self._model_label(model), code, reason), n)

    def count_caller_refusals(self, caller: str, code: str, n: int) -> None:
        """Add *n* calls of *caller* that were refused for its identity, models or quota."""
        self._add_count("turnout_caller_refusals", (caller, code), n)

    def count_handshake_refusals(self, reason: str, n: int) -> None:
        """Add *n* refused TLS handshakes; *reason* is HandshakeRefusal.reason."""
        self._add_count("turnout_handshake_refusals", (reason,), n)

    def count_feature_rows(self, model: str, kind: str, n: int) -> None:
        """Add *n* rows; *kind* is missing, stale, defaulted, degraded or broken."""
        self._add_count("turnout_feature_rows", (self._model_label(model), kind), n)

    def count_feature_reads(self, outcome: str, n: int = 1) -> None:
        """Add *n* reads of the online store; *outcome* is ok or OnlineStoreError.reason."""
        self._add_count("turnout_feature_reads", (outcome,), n)

    def count_shadow(self, model: str, version: str, outcome: str, n: int) -> None:
        """Add *n* copies for a shadow; *outcome* is scored, faulty or dropped."""
        self._add_count("turnout_shadow", (self._model_label(model), version, outcome), n)

    def count_shadow_record(self, model: str, version: str, outcome: str, n: int) -> None:
        """Add *n* scored calls of a shadow; *outcome* is journaled or dropped."""
        self._add_count("turnout_shadow_records", (self._model_label(model), version, outcome), n)

    def count_outcome(self, model: str, kind: str) -> None:
        """Count one acknowledged outcome report; *kind* is one of ReportOutcomeService.KINDS."""
        self._add_count("turnout_outcomes", (self._model_label(model), kind), 1)

    def count_registry_refusal(self, kind: str) -> None:
        """Count something that was not accepted; *kind* is a name of RegistryAlarm.Kind."""
        self._add_count("turnout_registry_refusals", (kind,), 1)

    def count_journal_dropped(self, kind: str, n: int) -> None:
        """Add *n* records that the journal of *kind* dropped."""
        self._add_count("turnout_journal_dropped", (kind,), n)

    def count_windows_dropped(self, n: int) -> None:
        """Add *n* window batches that were dropped."""
        self._add_count("turnout_windows_dropped", (), n)

    def set_gauge(self, name: str, value: float, *labels: str) -> None:
        """Set gauge *name* of FAMILIES to *value*; *labels* are in the family's order.

        Raises KeyError for a name that is no gauge, ValueError for the wrong number of labels.
        """
        if len(labels) != len(FAMILIES[name].labels):
            raise ValueError(f"{name} takes labels {FAMILIES[name].labels}, not {labels}")
        series = self._gauges[name]
        series[self._bounded_key(series, labels, FAMILIES[name].labels)] = value

    def replace_gauge(self, name: str, values: Mapping[LabelValues, float]) -> None:
        """Set the series of gauge *name* of FAMILIES to *values*, and drop its other series.

        Raises as `set_gauge`.
        """
        self._gauges[name].clear()
        for labels, value in values.items():
            self.set_gauge(name, value, *labels)

    def snapshot(self) -> dict[str, Any]:
        """Return all metrics as JSON values: {family: [[labels, value], ...]}.

        A histogram's value is [count of each bucket, ..., sum]; its last bucket has no upper bound.
        The sum of turnout_call_seconds is within 1 %, because it uses the middle of each bin.
        """
        families: dict[str, Any] = {
            name: [[list(key), value] for key, value in series.items()]
            for name, series in (self._counters | self._gauges).items()
            if series
        }
        families["turnout_score"] = [
            [[*key, str(index)], int(counts[index])]
            for key, counts in self._scores.items()
            for index in np.flatnonzero(counts).tolist()
        ]
        families["turnout_call_seconds"] = [
            [list(key), [*np.add.reduceat(total, _STARTS).tolist(), float(total @ _MIDDLE_S)]]
            for key, total in self._latency.items()
        ]
        families["turnout_batch_rows"] = [[[], [*self._batches, float(self._batch_rows)]]]
        families["turnout_loop_stall_seconds"] = [
            [[source], list(counts)] for source, counts in self._stalls.items()
        ]
        return families

    def _add_count(self, name: str, key: LabelValues, n: int) -> None:
        series = self._counters[name]
        count = series.get(key)
        if count is None:
            key = self._bounded_key(series, key, FAMILIES[name].labels)
            count = series.get(key, 0)
        series[key] = count + n

    def _model_label(self, model: str) -> str:
        return model if self._deployed is None or model in self._deployed else OTHER

    def _bounded_key(
        self, series: dict[LabelValues, Any], key: LabelValues, labels: tuple[str, ...] = ARM_LABELS
    ) -> LabelValues:
        """Return *key*; for a new key of a full family, one with `other` as model and version."""
        if key in series or len(series) < SERIES_MAX:
            return key
        # Without the versions that are gone, there is usually room.
        if labels[:2] == ("model", "version") and self._deployed is not None:
            for old in list(series):
                if old[0] != OTHER and old[1] not in self._deployed.get(old[0], ()):
                    del series[old]
            if len(series) < SERIES_MAX:
                return key
        pairs = zip(key, labels, strict=False)
        return tuple(OTHER if label in ("model", "version") else value for value, label in pairs)
