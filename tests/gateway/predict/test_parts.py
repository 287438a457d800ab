"""The parts of a batch that are pure: scoring, breaker, call queue, batch delay and slices."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.batch import BatchSlice
from gateway.columns import row_counts
from gateway.models.executor import CanaryBreaker, Fault, score_calls
from gateway.predict.feature_lookup import read_budget_s
from gateway.status import Code, RefusedError
from gateway.transport.admission import Admission, filter_calls, split_by_deadline
from gateway.transport.call_queue import CallQueue
from gateway.transport.decode import DecodedCall
from gateway.transport.grpcio.batch_delay import SKIPS_MAX, BatchDelay
from registry.types import ScoringError
from tests.property_examples import examples

row_count_lists = st.lists(st.integers(1, 5), min_size=1, max_size=20)


class PoisonedScorer:
    """A scorer whose score is the first input. It raises if any first input is negative."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (B, 1) first inputs."""
        self.runs += 1
        if (matrix[:, 0] < 0).any():
            raise ScoringError("poisoned")
        return matrix[:, :1].copy()


def offsets_of(counts: list[int]) -> NDArray[np.uint32]:
    """Return the (C + 1,) offsets of C calls with these row counts."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)


@examples(100)
@given(row_count_lists, st.data())
def test_score_calls_fails_only_the_poisoned_calls(counts: list[int], data: st.DataObject) -> None:
    """Any calls are poisoned in any row; the other calls have the scores of a run without them."""
    rows = sum(counts)
    poisoned = data.draw(st.sets(st.integers(0, rows - 1), max_size=4))
    matrix = np.arange(1, rows + 1, dtype=np.float32)[:, None]
    matrix[list(poisoned)] *= -1
    offsets = offsets_of(counts)

    scored = score_calls(PoisonedScorer(), matrix, offsets, 1)

    for call in range(len(counts)):
        call_rows = slice(int(offsets[call]), int(offsets[call + 1]))
        is_poisoned = bool((matrix[call_rows] < 0).any())
        assert scored.faults[call] == (Fault.RAISED if is_poisoned else Fault.NONE)
        assert is_poisoned or np.array_equal(scored.scores[call_rows], matrix[call_rows])


def test_score_calls_finds_one_poisoned_call_of_256_in_17_runs() -> None:
    """Halving the batch needs 2 log2(256) + 1 = 17 runs instead of 256."""
    matrix = np.ones((256, 1), dtype=np.float32)
    matrix[99] = -1
    scorer = PoisonedScorer()
    scored = score_calls(scorer, matrix, offsets_of([1] * 256), 1)
    assert int(np.count_nonzero(scored.faults)) == 1
    assert scorer.runs <= 17


def test_score_calls_fails_a_call_with_a_nan_score_in_any_row() -> None:
    """The second row of the second of three calls scores NaN."""
    matrix = np.array([[1], [1], [1], [math.nan], [1], [1]], dtype=np.float32)
    scored = score_calls(PoisonedScorer(), matrix, offsets_of([2, 2, 2]), 1)
    assert scored.faults.tolist() == [Fault.NONE, Fault.NOT_FINITE, Fault.NONE]


def test_canary_breaker_opens_after_three_faulty_runs_on_five_keys() -> None:
    """One good answer starts the count again. Two runs on six keys are not enough."""
    breaker = CanaryBreaker(3, 5)
    assert not any(breaker.record([k], any_answered=False, at_unix_ns=k + 1) for k in range(4))
    breaker.record([], any_answered=True, at_unix_ns=9)
    assert not breaker.record([1, 2, 3, 4, 5, 6], any_answered=False, at_unix_ns=10)
    assert not breaker.record([7], any_answered=False, at_unix_ns=11)
    assert breaker.record([8], any_answered=False, at_unix_ns=12)
    assert breaker.open
    assert breaker.first_bad_unix_ns == 10
    assert not breaker.record([9], any_answered=False, at_unix_ns=13), "it opens once"


def call(rows: int, model: str = "churn", name: str = "S") -> DecodedCall:
    """A call of *rows* rows with one entity and one input."""
    ids = [f"{name}{n}".encode() for n in range(rows)]
    return DecodedCall(model, rows, b"", b"", "", 0, ids, [float(n) for n in range(rows)], 0)


def admit_call(queue: CallQueue, rows: int, arrived_ns: int, model: str = "churn") -> int:
    """Admit a call with a deadline of one second, and return its handle."""
    deadline_ns = arrived_ns + 10**9
    return queue.admit(call(rows, model), arrived_ns=arrived_ns, deadline_ns=deadline_ns)


def test_call_queue_pops_the_model_that_waited_longest_and_never_splits_a_call() -> None:
    """A batch has up to rows_max rows; a larger call is a batch of its own."""
    queue = CallQueue(Admission(1_000, 100, 100))
    admit_call(queue, 3, 2, "fraud")
    admit_call(queue, 30, 1)
    admit_call(queue, 10, 3)
    admit_call(queue, 10, 4)

    batches = [queue.pop_calls(16) for _ in range(5)]

    assert [batch.rows for batch in batches if batch] == [30, 3, 10, 10]
    assert [batch.model for batch in batches if batch] == ["churn", "fraud", "churn", "churn"]
    assert batches[-1] is None


def test_call_queue_releases_the_rows_of_a_cancelled_call_at_once() -> None:
    """Another call can be admitted, and the batch has only that call."""
    queue = CallQueue(Admission(10, 100, 100))
    cancelled = admit_call(queue, 10, 1)
    with pytest.raises(RefusedError) as refused:
        admit_call(queue, 1, 2)
    assert refused.value.refusal.code == Code.UNAVAILABLE
    assert refused.value.refusal.pushback_ms == 100

    queue.finish_call(cancelled)
    waiting = admit_call(queue, 4, 3)
    batch = queue.pop_calls(256)

    assert batch is not None
    assert batch.handles.tolist() == [waiting]
    queue.finish_call(waiting)
    queue.finish_call(waiting)
    assert (queue.rows_inside, queue.rows_waiting) == (0, 0)


@examples(100)
@given(row_count_lists, st.data())
def test_filter_calls_returns_the_columns_of_a_batch_of_only_these_calls(
    counts: list[int], data: st.DataObject
) -> None:
    """Any calls of a batch are selected; the expected batch comes from a queue of only them."""
    selected = sorted(data.draw(st.sets(st.integers(0, len(counts) - 1))))
    admission = Admission(10_000, 100, 100)
    all_calls, selected_calls = CallQueue(admission), CallQueue(admission)
    # Calls with sticky keys, request ids and pins of different lengths.
    for index, rows in enumerate(counts):
        decoded = call(rows, name=f"{index}-")
        decoded.sticky, decoded.request_id = b"k" * index, b"r" * (index % 3)
        decoded.pin = "7" if index % 4 == 0 else ""
        all_calls.admit(decoded, arrived_ns=index, deadline_ns=index)
        if index in selected:
            selected_calls.admit(decoded, arrived_ns=index, deadline_ns=index)
    batch, expected = all_calls.pop_calls(10_000), selected_calls.pop_calls(10_000)
    assert batch is not None

    filtered = filter_calls(batch, np.array(selected, dtype=np.intp))

    # Every column is equal.
    if expected is None:
        assert filtered.calls == 0
        return
    for name in ("arrived_ns", "row_offsets", "sticky_offsets", "entity_offsets", "inputs"):
        assert np.array_equal(getattr(filtered, name), getattr(expected, name)), name
    assert (filtered.sticky, filtered.request_ids, filtered.entity_ids, filtered.pins) == (
        expected.sticky,
        expected.request_ids,
        expected.entity_ids,
        expected.pins,
    )


def test_split_by_deadline_separates_calls_that_cannot_be_answered_in_time() -> None:
    """An answer needs 1,000 ns. Of the deadlines in 100 and 5,000 ns only the second suffices."""
    queue = CallQueue(Admission(10, 100, 100))
    for deadline_ns in (100, 5_000):
        queue.admit(call(1), arrived_ns=0, deadline_ns=deadline_ns)
    calls = queue.pop_calls(10)
    assert calls is not None
    admitted = split_by_deadline(calls, 0, 1_000)
    assert (admitted.expired_handles.tolist(), admitted.calls.handles.tolist()) == ([1], [2])


@examples(100)
@given(row_count_lists, st.data())
def test_batch_slice_subset_has_the_rows_of_its_calls(
    counts: list[int], data: st.DataObject
) -> None:
    """A slice of calls in any order is made, and a subset of that slice in any order."""
    offsets = offsets_of(counts)
    calls = data.draw(st.permutations(range(len(counts))))
    batch_slice = BatchSlice.from_calls(np.array(calls, dtype=np.intp), offsets)
    indexes = data.draw(st.lists(st.integers(0, len(counts) - 1), unique=True))
    subset = batch_slice.subset(np.array(indexes, dtype=np.intp))
    expected = [
        row for index in indexes for row in range(offsets[calls[index]], offsets[calls[index] + 1])
    ]
    assert subset.row_indexes.tolist() == expected
    assert row_counts(subset.row_offsets).tolist() == [counts[calls[index]] for index in indexes]


def test_batch_delay_of_a_single_caller_is_tried_once_in_257_calls() -> None:
    """While waits bring no call, the pause between them doubles to SKIPS_MAX calls."""
    batch_delay, waited = BatchDelay(), []
    for number in range(2_000):
        if batch_delay.should_wait(1):
            waited.append(number)
            batch_delay.record_newcomers(0)
    assert waited[:3] == [0, 3, 8]
    assert waited[-1] - waited[-2] == SKIPS_MAX + 1
    assert len(waited) <= 15


def test_batch_delay_waits_again_after_a_second_call_or_newcomers() -> None:
    """Eight waits brought no call before. A second waiting call, or newcomers, end the pause."""
    batch_delay = BatchDelay()
    for _ in range(8):
        batch_delay.record_newcomers(0)
    assert not batch_delay.should_wait(1)
    assert batch_delay.should_wait(2)
    batch_delay.record_newcomers(5)
    assert batch_delay.should_wait(1)


def test_read_budget_grows_with_the_rows_of_a_batch_within_its_deadline() -> None:
    """Up to a full batch it is the budget itself; 30 % of the time that is left bounds it."""
    feature_ns, second_ns = 30_000_000, 1_000_000_000
    assert read_budget_s(feature_ns, 1, second_ns) == 0.03
    assert read_budget_s(feature_ns, 512, second_ns) == 0.03
    assert read_budget_s(feature_ns, 4_096, second_ns) == 0.24
    assert read_budget_s(feature_ns, 4_096, second_ns // 2) == 0.15
    assert read_budget_s(feature_ns, 1, second_ns // 20) == 0.015
