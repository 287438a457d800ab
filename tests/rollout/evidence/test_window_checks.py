"""Tests of the checks of windows: what is malformed is dropped, and what passes raises nowhere."""

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from protos import window_pb2
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import NS, ClosedSecond
from rollout.evidence.window_checks import (
    COUNT_MAX,
    REASON_CHARS_MAX,
    WINDOWS_PER_BATCH_MAX,
    DeployedVersions,
    drop_malformed,
)
from rollout.policy.policy import POLICIES
from rollout.policy.stages import Stage, StagePosition
from tests.property_examples import examples

NOW_S = 1_800_000_000
DEPLOYED = {"churn": DeployedVersions(7, {"1", "2"})}
SCORE, LATENCY, TIMEOUT = (
    window_pb2.METRIC_SCORE,
    window_pb2.METRIC_LATENCY,
    window_pb2.METRIC_TIMEOUT,
)


def right_window(**fields: Any) -> window_pb2.Window:  # noqa: ANN401  any field of the message
    """Return a window that can be counted, with *fields* instead of its own."""
    own: dict[str, Any] = {
        "model": "churn",
        "version": "2",
        "arm": window_pb2.ARM_CANARY,
        "revision": 7,
        "second": NOW_S - 1,
        "calls": window_pb2.CallCounts(answered=2),
        "records": [
            window_pb2.KeyRecords(metric=SCORE, key_hash=[1, 2], bin=[3, 63], production_bin=[3]),
            window_pb2.KeyRecords(metric=LATENCY, key_hash=[1], bin=[692], batch_calls=[1]),
            window_pb2.KeyRecords(metric=TIMEOUT, key_hash=[9], batch_calls=[4]),
        ],
    }
    return window_pb2.Window(**(own | fields))


def batch_of(*items: Message) -> window_pb2.WindowBatch:
    """Return a batch that was sent at NOW_S."""
    batch = window_pb2.WindowBatch(sequence=1, sent_unix_ns=NOW_S * NS)
    for item in items:
        (batch.windows if isinstance(item, window_pb2.Window) else batch.guards).append(item)
    return batch


def records(**fields: Any) -> list[window_pb2.KeyRecords]:  # noqa: ANN401
    """Return the records of one metric."""
    return [window_pb2.KeyRecords(**fields)]


def pairs_of(*outputs: dict[str, Any]) -> window_pb2.PairCounts:
    """Return pairs with these outputs."""
    return window_pb2.PairCounts(outputs=[window_pb2.OutputDifference(**item) for item in outputs])


MALFORMED = {
    "model not deployed": [{"model": "invented"}, {"model": ""}],
    "version not deployed": [{"version": "3"}],
    "revision": [{"revision": 0}, {"revision": 18}, {"revision": 2**64 - 1}],
    "second": [{"second": NOW_S - 61}, {"second": NOW_S + 3}, {"second": -(2**63)}],
    "time": [{"last_bad_unix_ns": 1}, {"first_bad_unix_ns": 2**63 - 1}],
    "arm": [{"arm": 77}, {"arm": 0}],
    "count": [
        {"rows": 2**64 - 1},
        {"calls": window_pb2.CallCounts(answered=COUNT_MAX + 1)},
        {"pairs": window_pb2.PairCounts(pairs=1, flips=2)},
        {"latency": window_pb2.SparseHistogram(index=[1], count=[2**63])},
    ],
    "bins of outputs": [{"output_bins": bins} for bins in ([1, 2], [0, 60], [0, 2, 2], [0, 3, 1])],
    "number of outputs": [{"pairs": pairs_of(*[{"name": "a", "spread": 1.0}] * 61)}],
    "task": [{"pairs": window_pb2.PairCounts(task="clustering")}],
    "output": [{"pairs": pairs_of({"spread": 1.0})}, {"pairs": pairs_of({"name": "a" * 257})}],
    "spread": [
        {"pairs": pairs_of({"name": "a", "spread": value})}
        for value in (0.0, -1.0, float("nan"), float("inf"))
    ],
    "sum": [
        {"pairs": window_pb2.PairCounts(pairs=1, absolute_sum=value)}
        for value in (float("nan"), float("inf"), -1.0, 1e300)
    ],
    "sample": [{"sampled_of_65536": 65_537}],
    "metric": [{"records": records(metric=99, key_hash=[1])}, {"records": records(key_hash=[1])}],
    "length of a column": [
        {"records": records(metric=TIMEOUT, key_hash=[1, 2, 3], batch_calls=[1])},
        {"records": records(metric=SCORE, key_hash=[1, 2], bin=[1])},
        {"records": records(metric=SCORE, key_hash=[1], bin=[1], production_bin=[1, 2])},
        {"records": records(metric=LATENCY, key_hash=[1])},
        {"scores": window_pb2.SparseHistogram(index=[1, 2], count=[1])},
        {"pairs": window_pb2.PairCounts(joint_index=[1], joint_count=[])},
        {"arm": 0, "records": [], "outcomes": [window_pb2.OutcomeReports(key_hash=[1])]},
    ],
    "bin": [
        {"records": records(metric=SCORE, key_hash=[1], bin=[64])},
        {"records": records(metric=LATENCY, key_hash=[1], bin=[693])},
        {"records": records(metric=SCORE, key_hash=[1], bin=[1], production_bin=[64])},
        {"pairs": window_pb2.PairCounts(joint_index=[4096], joint_count=[1])},
    ],
    "calls of a batch": [
        {"records": records(metric=TIMEOUT, key_hash=[1], batch_calls=[0])},
        {"records": records(metric=LATENCY, key_hash=[1], bin=[1], batch_calls=[2**32 - 1])},
    ],
    "outcome": [
        {"arm": 0, "records": [], "outcomes": [window_pb2.OutcomeReports(name="n" * 129)]},
        {"arm": 0, "records": [], "outcomes": [window_pb2.OutcomeReports(role=9)]},
    ],
}
"""Reason -> windows that are dropped for it."""


@pytest.mark.parametrize(
    ("reason", "fields"),
    [(reason, fields) for reason, many in MALFORMED.items() for fields in many],
)
def test_malformed_window_is_dropped_with_its_reason(reason: str, fields: dict[str, Any]) -> None:
    """The right window beside it stays, and an invented model leaves no name."""
    batch = batch_of(right_window(**fields), right_window())

    model = "" if fields.get("model", "churn") != "churn" else "churn"
    assert drop_malformed(batch, DEPLOYED) == {(model, reason): 1}
    assert list(batch.windows) == [right_window()]


def test_right_windows_stay_as_they_are() -> None:
    """Outcomes have a window without an arm, and a gateway may be some revisions ahead."""
    outcomes = [window_pb2.OutcomeReports(role=1, name="n", key_hash=[1], value=[float("nan")])]
    batch = batch_of(
        right_window(),
        right_window(revision=17),
        right_window(arm=0, records=[], outcomes=outcomes),
    )
    before = batch.SerializeToString()

    assert drop_malformed(batch, DEPLOYED) == {}
    assert batch.SerializeToString() == before


def test_windows_beyond_the_number_of_a_message_are_dropped() -> None:
    """The first ones stay."""
    batch = batch_of(*[right_window(rows=row) for row in range(WINDOWS_PER_BATCH_MAX + 5)])

    assert drop_malformed(batch, DEPLOYED) == {("", "more than a message may have"): 5}
    assert [window.rows for window in batch.windows] == list(range(WINDOWS_PER_BATCH_MAX))


def test_malformed_guard_is_dropped_and_a_long_reason_is_cut() -> None:
    """A guard must not be lost because its reason is long."""
    kind = window_pb2.HardGuard.PROCESS_DIED
    right = {"model": "churn", "version": "2", "revision": 7, "kind": kind}
    wrong: list[dict[str, Any]] = [{"kind": 0}, {"kind": 9}, {"version": "3"}, {"at_unix_ns": -1}]
    batch = batch_of(
        *[window_pb2.HardGuard(**(right | fields)) for fields in wrong],
        window_pb2.HardGuard(**right, reason="x" * 5_000),
    )

    assert sum(drop_malformed(batch, DEPLOYED).values()) == len(wrong)
    assert [len(guard.reason) for guard in batch.guards] == [REASON_CHARS_MAX]


SMALL = st.integers(min_value=0, max_value=3)
COLUMN = st.lists(st.sampled_from([0, 1, 62, 63, 64, 692, 693, 2**32 - 1]), max_size=3)
HISTOGRAM = st.builds(window_pb2.SparseHistogram, index=COLUMN, count=COLUMN)
WINDOWS = st.builds(
    right_window,
    version=st.sampled_from(["1", "2"]),
    arm=st.integers(min_value=0, max_value=6),
    calls=st.builds(window_pb2.CallCounts, answered=SMALL, fallbacks=SMALL, late=SMALL),
    pairs=st.builds(
        window_pb2.PairCounts,
        pairs=SMALL,
        flips=SMALL,
        absolute_sum=st.sampled_from([0.0, 1.0, -1.0, 1e99, float("inf"), float("nan")]),
        joint_index=COLUMN,
        joint_count=COLUMN,
    ),
    scores=HISTOGRAM,
    records=st.lists(
        st.builds(
            window_pb2.KeyRecords,
            metric=st.integers(min_value=0, max_value=6),
            key_hash=st.lists(SMALL, max_size=3),
            bin=COLUMN,
            production_bin=COLUMN,
            batch_calls=COLUMN,
        ),
        max_size=3,
    ),
    outcomes=st.lists(
        st.builds(
            window_pb2.OutcomeReports,
            role=st.integers(min_value=0, max_value=5),
            name=st.just("accepted"),
            key_hash=st.lists(SMALL, max_size=2),
            value=st.lists(st.sampled_from([0.0, 1.0, float("nan")]), max_size=2),
        ),
        max_size=1,
    ),
)


@examples(300)
@given(st.lists(WINDOWS, max_size=4), st.sampled_from([Stage.SHADOW, Stage.CANARY, Stage.WATCH]))
def test_windows_that_pass_the_checks_raise_nowhere(
    windows: list[window_pb2.Window], stage: Stage
) -> None:
    """Counting them, and writing what was counted, works for every stage."""
    batch = batch_of(*windows)
    drop_malformed(batch, DEPLOYED)
    evidence = Evidence("2", "1", POLICIES["standard"])

    second = ClosedSecond(NOW_S, 7, tuple(batch.windows))
    evidence.count_second(second, StagePosition(stage), current=True)
    evidence.to_proto()
    evidence.totals.to_proto()
