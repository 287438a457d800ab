"""What one worker counts: plain dicts and arrays, written once a batch, sent once a second.

The supervisor makes Prometheus text of it (gateway.supervision.exposition); nothing here knows
Prometheus. A count costs a dict look-up (about .3 us), a latency histogram one addition of 693
numbers (about 1 us). Touched by the event loop's thread only.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stats.latency import BINS, EDGES_NS

SERIES_MAX = 1_024
"""Series a family: 30 models, 8 versions, 4 roles. Past that, model and version read `other`."""

OTHER = "other"

ROW_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
"""`le` of turnout_batch_rows."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as Prometheus sees it. Every one also has the label `worker`, the slot."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    documentation: str


ARM_LABELS = ("model", "version", "role")

FAMILIES: dict[str, Family] = {
    "turnout_calls": Family("counter", (*ARM_LABELS, "outcome"), "Calls by what became of them."),
    "turnout_refusals": Family("counter", ("model", "code", "reason"), "Calls refused, and why."),
    "turnout_call_seconds": Family("histogram", ARM_LABELS, "From arrival to reply."),
    "turnout_score": Family(
        "counter", (*ARM_LABELS, "bin"), "Rows by the reference bin of their score."
    ),
    "turnout_batch_rows": Family("histogram", (), "Rows of one batch."),
    "turnout_feature_rows": Family(
        "counter", ("model", "kind"), "Rows whose features were missing, stale, defaulted, ..."
    ),
    "turnout_feature_reads": Family("counter", ("outcome",), "Online reads, one a batch."),
    "turnout_shadow": Family("counter", ("model", "version", "outcome"), "Copies for shadows."),
    "turnout_shadow_ends": Family(
        "counter", ("model", "version", "cause"), "Shadow processes that ended by themselves."
    ),
    "turnout_outcomes": Family(
        "counter", ("model", "kind"), "Outcomes acknowledged: on_time, late, orphan, ..."
    ),
    "turnout_journal_dropped": Family("counter", ("kind",), "Records the journal did not take."),
    "turnout_windows_dropped": Family("counter", (), "Window batches given up for a silent sink."),
    "turnout_rows_inside": Family("gauge", (), "Rows admitted and not yet answered."),
    "turnout_worker_tasks": Family("gauge", (), "Tasks of the worker's event loop."),
    "turnout_worker_fds": Family("gauge", (), "Descriptors the worker holds open."),
    "turnout_feature_store_state": Family(
        "gauge", (), "Breaker of the feature store: 0 closed (all is well), 1 half open, 2 open."
    ),
    "turnout_deployment_revision": Family("gauge", ("model",), "Revision that this worker serves."),
}
"""What a worker counts. The supervisor adds its own (gateway.supervision.exposition.SUPERVISED)."""

LabelValues = tuple[str, ...]


_TARGET_SECONDS = tuple(digit * 10.0**power for power in range(-4, 2) for digit in (1, 2, 5))

SECONDS_BINS: NDArray[np.int64] = np.searchsorted(EDGES_NS, np.array(_TARGET_SECONDS) * 1e9 / 1.011)
"""(18,) positions in EDGES_NS next to 1, 2, 5 x 10^n: on edges, so collapsed counts stay exact."""

SECONDS_EDGES: tuple[float, ...] = tuple(float(EDGES_NS[i]) / 1e9 for i in SECONDS_BINS)
"""`le` of turnout_call_seconds, 100 us to 50 s."""

_STARTS = np.concatenate(([0], SECONDS_BINS + 1))
_LOWER = np.concatenate(([0], EDGES_NS)).astype(np.float64)
_UPPER = np.concatenate((EDGES_NS, EDGES_NS[-1:])).astype(np.float64)
_MIDDLE_S: NDArray[np.float64] = 2.0 * _UPPER * _LOWER / (_UPPER + _LOWER) / 1e9
_MIDDLE_S[0] = float(EDGES_NS[0]) / 2e9


class Metrics:
    """A worker's counts since it started; they only grow."""

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
        self._models: frozenset[str] | None = None

    def set_models(self, models: Collection[str]) -> None:
        """Only *models* get series of their own from now on: a caller cannot invent labels."""
        self._models = frozenset(models)

    def count_calls(self, model: str, version: str, role: str, outcome: str, n: int) -> None:
        """*n* calls that *version* answered, failed, ...: outcome is one word."""
        self._add_count("turnout_calls", (self._model_label(model), version, role, outcome), n)

    def count_shadow_end(self, model: str, version: str, cause: str) -> None:
        """A shadow's process ended: crashed, hung, silent, killed, ... (shadow.shadow_process)."""
        self._add_count("turnout_shadow_ends", (self._model_label(model), version, cause), 1)

    def count_latency(self, model: str, version: str, role: str, counts: NDArray[np.int64]) -> None:
        """Add *counts*, (BINS,) on stats.latency.EDGES_NS, of calls from arrival to reply."""
        key = self._bounded_key(self._latency, (self._model_label(model), version, role))
        held = self._latency.get(key)
        if held is None:
            held = self._latency[key] = np.zeros(BINS, dtype=np.int64)
        held += counts

    def count_scores(self, model: str, version: str, role: str, counts: NDArray[np.int64]) -> None:
        """Add *counts*, (J + 3,): rows by reference bin, then NaN, +inf, -inf."""
        key = self._bounded_key(self._scores, (self._model_label(model), version, role))
        held = self._scores.get(key)
        if held is None or len(held) < len(counts):  # longer only under `other`: by position then
            wider = np.zeros(len(counts), dtype=np.int64)
            wider[: 0 if held is None else len(held)] += 0 if held is None else held
            held = self._scores[key] = wider
        held[: len(counts)] += counts

    def count_batch(self, rows: int) -> None:
        """One batch of *rows* rows."""
        self._batches[next((i for i, le in enumerate(ROW_EDGES) if rows <= le), -1)] += 1
        self._batch_rows += rows

    def count_refusals(self, model: str, code: str, reason: str, n: int) -> None:
        """*n* calls refused with *code* (its name), for *reason* (one word of ours)."""
        self._add_count("turnout_refusals", (self._model_label(model), code, reason), n)

    def count_feature_rows(self, model: str, kind: str, n: int) -> None:
        """*n* rows that were missing, stale, defaulted, degraded or broken."""
        self._add_count("turnout_feature_rows", (self._model_label(model), kind), n)

    def count_feature_reads(self, outcome: str, n: int = 1) -> None:
        """*n* online reads: ok, or OnlineStoreError.reason."""
        self._add_count("turnout_feature_reads", (outcome,), n)

    def count_shadow(self, model: str, version: str, outcome: str, n: int) -> None:
        """*n* copies for a shadow: scored, faulty, dropped."""
        self._add_count("turnout_shadow", (self._model_label(model), version, outcome), n)

    def count_outcome(self, model: str, kind: str) -> None:
        """One outcome acknowledged; *kind* is one of report_outcome.Outcomes.KINDS."""
        self._add_count("turnout_outcomes", (self._model_label(model), kind), 1)

    def count_journal_dropped(self, kind: str, n: int) -> None:
        """*n* records that the journal of *kind* did not take."""
        self._add_count("turnout_journal_dropped", (kind,), n)

    def count_windows_dropped(self, n: int) -> None:
        """*n* window batches given up."""
        self._add_count("turnout_windows_dropped", (), n)

    def set_gauge(self, name: str, value: float, *labels: str) -> None:
        """Set gauge *name* of FAMILIES to *value*; *labels* in the family's order.

        Raises KeyError for a name that is no gauge, ValueError for the wrong number of labels.
        """
        if len(labels) != len(FAMILIES[name].labels):
            raise ValueError(f"{name} takes labels {FAMILIES[name].labels}, not {labels}")
        series = self._gauges[name]
        series[self._bounded_key(series, labels)] = value

    def snapshot(self) -> dict[str, Any]:
        """Return everything as JSON values: {family: [[labels, value], ...]}.

        A histogram's value is [counts a bucket, the last one open, ..., sum]. The sum of
        turnout_call_seconds is within 1 %: it is taken from the bins' middles.
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
            [list(key), [*np.add.reduceat(held, _STARTS).tolist(), float(held @ _MIDDLE_S)]]
            for key, held in self._latency.items()
        ]
        families["turnout_batch_rows"] = [[[], [*self._batches, float(self._batch_rows)]]]
        return families

    def _add_count(self, name: str, key: LabelValues, n: int) -> None:
        series = self._counters[name]
        held = series.get(key)
        if held is None:
            key = self._bounded_key(series, key, FAMILIES[name].labels)
            held = series.get(key, 0)
        series[key] = held + n

    def _model_label(self, model: str) -> str:
        return model if self._models is None or model in self._models else OTHER

    @staticmethod
    def _bounded_key(
        series: dict[LabelValues, Any], key: LabelValues, labels: tuple[str, ...] = ARM_LABELS
    ) -> LabelValues:
        """*key* itself while there is room; then one with `other` for model and version."""
        if key in series or len(series) < SERIES_MAX:
            return key
        pairs = zip(key, labels, strict=False)
        return tuple(OTHER if label in ("model", "version") else part for part, label in pairs)
