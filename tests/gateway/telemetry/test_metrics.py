"""A worker's metrics come out of the supervisor as Prometheus text."""

import time

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.supervision.exposition import (
    Exposition,
    Report,
    bounded_past,
    sum_snapshots,
    without_gauges,
)
from gateway.telemetry.metrics import FAMILIES, SECONDS_EDGES, SERIES_MAX, Metrics
from stats.latency import BINS, latency_bins

ARM = ("churn", "7", "production")


def samples(*snapshots: tuple[str, tuple[dict[str, object], ...]]) -> dict[str, float]:
    """Return what Prometheus reads: `name{labels}` -> value, with sorted labels."""
    text = Exposition(lambda: Report(slots=2, counts=dict(snapshots))).text().decode()
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_exposition_counts_calls_by_slot() -> None:
    """Two batches on slot 0 and one on slot 1 make three series with exact sums."""
    first, second = Metrics(), Metrics()
    first.count_calls(*ARM, "answered", 40)
    first.count_calls(*ARM, "answered", 2)
    first.count_calls(*ARM, "late", 1)
    second.count_calls(*ARM, "answered", 5)

    exposed = samples(("0", (first.snapshot(),)), ("1", (second.snapshot(),)))

    name = "turnout_calls_total{model=churn,outcome=%s,role=production,version=7,worker=%d}"
    assert exposed[name % ("answered", 0)] == 42
    assert exposed[name % ("late", 0)] == 1
    assert exposed[name % ("answered", 1)] == 5


def test_latency_histogram_has_exact_buckets_and_a_sum_within_one_percent() -> None:
    """Each bucket has the exact count of 10,000 latencies from 50 us to 200 s."""
    rng = np.random.default_rng(7)
    latency_ns = np.exp(rng.uniform(np.log(5e4), np.log(2e11), 10_000)).astype(np.int64)
    metrics = Metrics()
    for part in np.array_split(latency_ns, 7):
        metrics.count_latency(*ARM, np.bincount(latency_bins(part), minlength=BINS))

    exposed = samples(("0", (metrics.snapshot(),)))

    labels = "model=churn,role=production,version=7,worker=0"
    for edge in SECONDS_EDGES:
        count = exposed[f"turnout_call_seconds_bucket{{le={edge!r},{labels}}}"]
        assert count == np.count_nonzero(latency_ns <= round(edge * 1e9))
    assert exposed[f"turnout_call_seconds_bucket{{le=+Inf,{labels}}}"] == 10_000
    assert exposed[f"turnout_call_seconds_count{{{labels}}}"] == 10_000
    # Latencies above 100 s share the last bin.
    sum_s = np.minimum(latency_ns, 10**11).sum() / 1e9
    assert exposed[f"turnout_call_seconds_sum{{{labels}}}"] == pytest.approx(sum_s, rel=0.01)


def test_metrics_methods_fill_every_family() -> None:
    """After one call of each method, each name of FAMILIES is exposed with the worker's label."""
    metrics = Metrics()
    # Call each method once.
    metrics.count_calls(*ARM, "answered", 1)
    metrics.count_latency(*ARM, np.bincount([3], minlength=BINS))
    metrics.count_scores(*ARM, np.bincount([0, 4, 4], minlength=23))
    metrics.count_batch(33)
    metrics.count_stall("Recorder.fold", 700_000)
    metrics.count_stall("Recorder.fold", 200_000)
    metrics.count_refusals("churn", "UNAVAILABLE", "overload", 2)
    metrics.count_caller_refusals("crm", "UNAUTHENTICATED", 1)
    metrics.count_handshake_refusals("no_certificate", 1)
    metrics.count_feature_rows("churn", "stale", 4)
    metrics.count_feature_reads("timeout")
    metrics.count_shadow("churn", "8", "dropped", 9)
    metrics.count_shadow_record("churn", "8", "journaled", 8)
    metrics.count_shadow_end("churn", "8", "crashed")
    metrics.count_journal_dropped("served", 3)
    metrics.set_gauge("turnout_journal_healthy", 1, "served")
    metrics.count_outcome("churn", "on_time")
    metrics.count_windows_dropped(1)
    metrics.set_gauge("turnout_windows_refused", 1)
    metrics.set_gauge("turnout_registry_connected", True)
    for name in ("turnout_rows_inside", "turnout_worker_tasks", "turnout_worker_fds"):
        metrics.set_gauge(name, 12)
    metrics.set_gauge("turnout_feature_store_state", 2)
    metrics.set_gauge("turnout_deployment_revision", 31, "churn")
    metrics.count_registry_refusal("KEY_CHANGED")
    metrics.set_gauge("turnout_certificate_days_left", 12.5, "registry")
    metrics.set_gauge("turnout_registry_alarms", 1, "KEY_CHANGED")
    for name in ("materialised_seconds", "newest_row_seconds", "old"):
        metrics.set_gauge(f"turnout_view_{name}", 1, "usage", "0123456789abcdef")

    exposed = samples(("1", (metrics.snapshot(),)))

    # Each family is exposed, with the counts that were made.
    for name in FAMILIES:
        assert [key for key in exposed if key.startswith(name) and "worker=1" in key], name
    score = "turnout_score_total{bin=%d,model=churn,role=production,version=7,worker=1}"
    assert (exposed[score % 0], exposed[score % 4]) == (1, 2)
    assert score % 1 not in exposed  # empty bins are left out
    assert exposed["turnout_batch_rows_bucket{le=32.0,worker=1}"] == 0
    assert exposed["turnout_batch_rows_bucket{le=64.0,worker=1}"] == 1
    assert exposed["turnout_batch_rows_sum{worker=1}"] == 33
    stalls = "turnout_loop_stall_seconds_%s,source=Recorder.fold,worker=1}"
    assert exposed[stalls % "bucket{le=0.0002"] == 1
    assert exposed[stalls % "bucket{le=0.001"] == 2
    assert exposed[(stalls % "sum{").replace("{,", "{")] == pytest.approx(0.0009)
    assert exposed["turnout_deployment_revision{model=churn,worker=1}"] == 31


def test_exposition_keeps_a_dead_workers_counts_and_drops_its_gauges() -> None:
    """42 calls before and 3 of its successor make 45; rows inside are the successor's."""
    dead, living = Metrics(), Metrics()
    for metrics, calls in ((dead, 42), (living, 3)):
        metrics.count_calls(*ARM, "answered", calls)
        metrics.count_batch(calls)
        metrics.set_gauge("turnout_rows_inside", calls)

    past = without_gauges(sum_snapshots([{}, dead.snapshot()]))
    exposed = samples(("0", (past, living.snapshot())))

    arm = "model=churn,outcome=answered,role=production,version=7,worker=0"
    assert exposed[f"turnout_calls_total{{{arm}}}"] == 45
    assert exposed["turnout_batch_rows_sum{worker=0}"] == 45
    assert exposed["turnout_rows_inside{worker=0}"] == 3
    assert "turnout_rows_inside" not in past


@pytest.mark.walk
def test_metrics_bound_the_series_that_callers_can_create() -> None:
    """10,000 unknown model names make one series, `other`; so do versions past the bound."""
    metrics = Metrics()
    metrics.set_deployed({"churn": [str(index) for index in range(3 * SERIES_MAX)]})
    for index in range(10_000):
        metrics.count_refusals(f"made-up-{index}", "NOT_FOUND", "model", 1)
        metrics.count_caller_refusals("crm", "UNAUTHENTICATED", 1)
    assert metrics.snapshot()["turnout_refusals"] == [[["other", "NOT_FOUND", "model"], 10_000]]

    for index in range(3 * SERIES_MAX):
        metrics.count_calls("churn", str(index), "production", "answered", 1)
        metrics.count_latency("churn", str(index), "production", np.ones(BINS, dtype=np.int64))
        counts = np.ones(20 + index % 3, dtype=np.int64)
        metrics.count_scores("churn", str(index), "production", counts)
    snapshot = metrics.snapshot()
    assert len(snapshot["turnout_calls"]) == SERIES_MAX + 1
    assert [["other", "other", "production", "answered"], 2 * SERIES_MAX] in snapshot[
        "turnout_calls"
    ]
    assert len(snapshot["turnout_call_seconds"]) == SERIES_MAX + 1


def test_newest_version_has_series_of_its_own_after_any_number_of_versions() -> None:
    """The series of versions that no deployment names make room for it, also across workers."""
    metrics = Metrics()
    for label in range(1, 3 * SERIES_MAX):
        metrics.set_deployed({"churn": [str(label - 1), str(label)]})
        for role in ("PRODUCTION", "CANARY"):
            metrics.count_calls("churn", str(label), role, "answered", 1)
    calls = {tuple(labels): n for labels, n in metrics.snapshot()["turnout_calls"]}
    assert len(calls) <= SERIES_MAX
    newest = str(3 * SERIES_MAX - 1)
    assert calls["churn", newest, "PRODUCTION", "answered"] == 1
    assert not [labels for labels in calls if "other" in labels]
    # A worker that ended leaves the counts of versions that living workers have.
    full = {"turnout_calls": [[["churn", str(n), "r", "answered"], 1] for n in range(SERIES_MAX)]}
    living = {"turnout_calls": [[["churn", "7", "r", "answered"], 2]]}
    past = bounded_past(full, [living])
    assert past == {"turnout_calls": [[["churn", "7", "r", "answered"], 1]]}
    assert bounded_past(living, []) == living


def test_replaced_gauge_drops_the_series_that_are_not_among_the_new_ones() -> None:
    """A view that no version reads any more leaves /metrics."""
    metrics = Metrics()
    metrics.replace_gauge("turnout_view_old", {("usage", "a"): 1.0, ("offers", "b"): 0.0})
    metrics.replace_gauge("turnout_view_old", {("offers", "b"): 1.0})
    assert metrics.snapshot()["turnout_view_old"] == [[["offers", "b"], 1.0]]
    with pytest.raises(ValueError, match="takes labels"):
        metrics.replace_gauge("turnout_view_old", {("usage",): 1.0})


def test_set_gauge_raises_for_an_undeclared_gauge_or_missing_labels() -> None:
    """Unknown names raise KeyError, missing labels ValueError."""
    with pytest.raises(KeyError):
        Metrics().set_gauge("turnout_typo", 1)
    with pytest.raises(ValueError, match="takes labels"):
        Metrics().set_gauge("turnout_deployment_revision", 1)


def test_metrics_of_one_batch_cost_a_few_microseconds() -> None:
    """Six updates take about 5 us, and less than 50 us on a busy machine."""
    metrics = Metrics()
    counts = np.bincount([100] * 64, minlength=BINS)
    best_s = 1.0
    for _ in range(200):
        start = time.thread_time()
        metrics.count_calls(*ARM, "answered", 64)
        metrics.count_latency(*ARM, counts)
        metrics.count_batch(64)
        metrics.count_feature_reads("ok")
        metrics.count_feature_rows("churn", "defaulted", 3)
        metrics.set_gauge("turnout_rows_inside", 64)
        best_s = min(best_s, time.thread_time() - start)
    assert best_s < 50e-6
