"""The pure parts of the batch core: scoring in halves, breaker, intake, patience, routing, rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.batch import BatchSlice
from gateway.columns import row_counts
from gateway.models.executor import CanaryBreaker, Fault, score_calls
from gateway.status import Code, RefusedError
from gateway.transport.admission import Admission, filter_calls, split_by_deadline
from gateway.transport.call_queue import CallQueue
from gateway.transport.decode import DecodedCall
from gateway.transport.grpcio.batch_delay import SKIPS_MAX, BatchDelay
from registry.types import ScoringError
from tests.property_examples import examples

row_count_lists = st.lists(st.integers(1, 5), min_size=1, max_size=20)


class Poisoned:
    """Scores a row by its first input; raises for a batch that holds a negative one."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 1)."""
        self.runs += 1
        if (matrix[:, 0] < 0).any():
            raise ScoringError("poisoned")
        return matrix[:, :1].copy()


def offsets_of(counts: list[int]) -> NDArray[np.uint32]:
    """(C + 1,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)


@examples(100)
@given(row_count_lists, st.data())
def test_only_poisoned_calls_fail_whatever_the_batch(
    counts: list[int], data: st.DataObject
) -> None:
    """Any calls, any of them poisoned in any row: the others' scores are as if alone."""
    rows = sum(counts)
    poisoned = data.draw(st.sets(st.integers(0, rows - 1), max_size=4))
    matrix = np.arange(1, rows + 1, dtype=np.float32)[:, None]
    matrix[list(poisoned)] *= -1
    offsets = offsets_of(counts)

    scored = score_calls(Poisoned(), matrix, offsets, 1)

    for call in range(len(counts)):
        mine = slice(int(offsets[call]), int(offsets[call + 1]))
        hit = bool((matrix[mine] < 0).any())
        assert scored.faults[call] == (Fault.RAISED if hit else Fault.NONE)
        assert hit or np.array_equal(scored.scores[mine], matrix[mine])


def test_one_poisoned_call_of_256_costs_some_17_runs() -> None:
    """2 log2(256) + 1 = 17 runs, not 256."""
    matrix = np.ones((256, 1), dtype=np.float32)
    matrix[99] = -1
    scorer = Poisoned()
    scored = score_calls(scorer, matrix, offsets_of([1] * 256), 1)
    assert int(np.count_nonzero(scored.faults)) == 1
    assert scorer.runs <= 17


def test_a_nan_anywhere_in_a_call_makes_that_call_unusable() -> None:
    """Three calls of two rows; the middle one's second row is NaN."""
    matrix = np.array([[1], [1], [1], [math.nan], [1], [1]], dtype=np.float32)
    scored = score_calls(Poisoned(), matrix, offsets_of([2, 2, 2]), 1)
    assert scored.faults.tolist() == [Fault.NONE, Fault.NOT_FINITE, Fault.NONE]


def test_the_breaker_wants_runs_and_keys_and_no_good_answer_between() -> None:
    """Three runs and five keys open it; one good answer begins anew; a faulty key in 20 never."""
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


def enter(intake: CallQueue, rows: int, at: int, model: str = "churn") -> int:
    """Let a call in, arrived at *at* ns."""
    return intake.admit(call(rows, model), arrived_ns=at, deadline_ns=at + 10**9)


def test_intake_takes_the_model_that_waited_longest_and_never_cuts_a_call() -> None:
    """Oldest first over models; up to rows_max rows; a larger call comes alone, whole."""
    intake = CallQueue(Admission(1_000, 100, 100))
    enter(intake, 3, 2, "fraud")
    enter(intake, 30, 1)
    enter(intake, 10, 3)
    enter(intake, 10, 4)

    taken = [intake.pop_calls(16) for _ in range(5)]

    assert [t.rows for t in taken if t] == [30, 3, 10, 10]
    assert [t.model for t in taken if t] == ["churn", "fraud", "churn", "churn"]
    assert taken[-1] is None


def test_a_call_that_left_is_not_taken_and_its_rows_are_free_at_once() -> None:
    """Cancelled while waiting: room for another, and the batch has only the other."""
    intake = CallQueue(Admission(10, 100, 100))
    gone = enter(intake, 10, 1)
    with pytest.raises(RefusedError) as refused:
        enter(intake, 1, 2)
    assert refused.value.refusal.code == Code.UNAVAILABLE
    assert refused.value.refusal.pushback_ms == 100

    intake.finish_call(gone)
    stays = enter(intake, 4, 3)
    taken = intake.pop_calls(256)

    assert taken is not None
    assert taken.handles.tolist() == [stays]
    intake.finish_call(stays)
    intake.finish_call(stays)
    assert (intake.rows_inside, intake.rows_waiting) == (0, 0)


@examples(100)
@given(row_count_lists, st.data())
def test_what_is_kept_of_a_batch_is_laid_out_as_if_it_had_come_alone(
    counts: list[int], data: st.DataObject
) -> None:
    """`only` of any calls equals the columns of those calls taken by themselves."""
    kept = sorted(data.draw(st.sets(st.integers(0, len(counts) - 1))))
    whole, some = CallQueue(Admission(10_000, 100, 100)), CallQueue(Admission(10_000, 100, 100))
    for place, rows in enumerate(counts):
        one = call(rows, name=f"{place}-")
        one.sticky, one.request_id = b"k" * place, b"r" * (place % 3)
        one.pin = "7" if place % 4 == 0 else ""
        whole.admit(one, arrived_ns=place, deadline_ns=place)
        if place in kept:
            some.admit(one, arrived_ns=place, deadline_ns=place)
    every, alone = whole.pop_calls(10_000), some.pop_calls(10_000)
    assert every is not None

    left = filter_calls(every, np.array(kept, dtype=np.intp))

    if alone is None:
        assert left.calls == 0
        return
    for name in ("arrived_ns", "row_offsets", "sticky_offsets", "entity_offsets", "inputs"):
        assert np.array_equal(getattr(left, name), getattr(alone, name)), name
    assert (left.sticky, left.request_ids, left.entity_ids, left.pins) == (
        alone.sticky,
        alone.request_ids,
        alone.entity_ids,
        alone.pins,
    )


def test_late_calls_are_parted_from_the_others() -> None:
    """Deadlines 100 and 5,000 ns from now, 1,000 ns needed: the first is late."""
    intake = CallQueue(Admission(10, 100, 100))
    for deadline_ns in (100, 5_000):
        intake.admit(call(1), arrived_ns=0, deadline_ns=deadline_ns)
    calls = intake.pop_calls(10)
    assert calls is not None
    admitted = split_by_deadline(calls, 0, 1_000)
    assert (admitted.expired_handles.tolist(), admitted.calls.handles.tolist()) == ([1], [2])


@examples(100)
@given(row_count_lists, st.data())
def test_a_part_of_a_part_is_that_part_of_the_whole(counts: list[int], data: st.DataObject) -> None:
    """Rows of calls picked twice are the rows of those calls."""
    offsets = offsets_of(counts)
    first = data.draw(st.permutations(range(len(counts))))
    part = BatchSlice.from_calls(np.array(first, dtype=np.intp), offsets)
    places = data.draw(st.lists(st.integers(0, len(counts) - 1), unique=True))
    again = part.subset(np.array(places, dtype=np.intp))
    expected = [
        row for place in places for row in range(offsets[first[place]], offsets[first[place] + 1])
    ]
    assert again.row_indexes.tolist() == expected
    assert row_counts(again.row_offsets).tolist() == [counts[first[place]] for place in places]


def test_a_lone_caller_waits_once_in_256_calls() -> None:
    """Waiting that brings nobody is tried at call 1, 3, 6, 11, ... and then every 257th."""
    patience, waited = BatchDelay(), []
    for number in range(2_000):
        if patience.should_wait(1):
            waited.append(number)
            patience.record_newcomers(0)
    assert waited[:3] == [0, 3, 8]
    assert waited[-1] - waited[-2] == SKIPS_MAX + 1
    assert len(waited) <= 15


def test_company_makes_patience_worth_it_again_at_once() -> None:
    """A second call inside, or newcomers the last time: wait."""
    patience = BatchDelay()
    for _ in range(8):
        patience.record_newcomers(0)
    assert not patience.should_wait(1)
    assert patience.should_wait(2)
    patience.record_newcomers(5)
    assert patience.should_wait(1)
