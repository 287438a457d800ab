"""Admission decides which calls are admitted, the call queue which of them is next."""

import pytest

from gateway.settings import Settings
from gateway.status import Code, RefusedError
from gateway.transport.admission import (
    PUSHBACK_MS,
    RATE_SAMPLE_NS,
    RATE_SAMPLE_ROWS,
    Admission,
    ServiceRate,
)
from gateway.transport.call_queue import NEWEST_FIRST_NS, CallQueue
from gateway.transport.decode import DecodedCall

CRITICAL, DEFAULT, SHEDDABLE = 1, 2, 3
LONG_NS = 10**12


def call(criticality: int = DEFAULT, rows: int = 1, model: str = "churn") -> DecodedCall:
    """Return a decoded call of *rows* rows."""
    return DecodedCall(
        model=model,
        rows=rows,
        sticky=b"",
        request_id=b"",
        pin="",
        criticality=criticality,
        ids=[b"S1"] * rows,
        inputs=[0.0] * rows,
        nan_inputs=0,
    )


def next_handles(queue: CallQueue, rows_max: int, now_ns: int = 0) -> list[int]:
    """Return the handles of the next batch."""
    calls = queue.pop_calls(rows_max, now_ns)
    return [] if calls is None else calls.handles.tolist()


def test_admission_refuses_sheddable_calls_first_and_critical_ones_last() -> None:
    """SHEDDABLE calls may fill 50 of 100 rows, DEFAULT and unspecified 90, CRITICAL all."""
    admission = Admission(100, 90, 50)

    def admitted(criticality: int, inside: int) -> bool:
        refusal = admission.refusal(
            1, criticality, rows_inside=inside, rows_scoring=0, left_ns=LONG_NS
        )
        return refusal is None

    for criticality, bound in ((SHEDDABLE, 50), (DEFAULT, 90), (0, 90), (CRITICAL, 100)):
        assert admitted(criticality, bound - 1)
        assert not admitted(criticality, bound)


def test_admission_accepts_any_call_when_no_row_is_inside() -> None:
    """The call may be the largest, and earlier calls may have been slow."""
    admission = Admission(100, 90, 50)
    admission.rate.row_ns = 1e9
    assert admission.refusal(100, SHEDDABLE, rows_inside=0, rows_scoring=0, left_ns=1) is None


def test_admission_refuses_a_call_that_would_be_late_with_a_pushback() -> None:
    """20 rows are ahead at 1 ms a row and 10 ms are left; the message has these numbers."""
    admission = Admission(100, 90, 50)
    admission.rate.row_ns = 1e6

    refusal = admission.refusal(1, DEFAULT, rows_inside=20, rows_scoring=20, left_ns=10_000_000)

    assert refusal is not None
    assert (refusal.code, refusal.pushback_ms) == (Code.UNAVAILABLE, PUSHBACK_MS)
    assert "behind 20" in refusal.message
    assert "10 ms left" in refusal.message
    assert (
        admission.refusal(1, DEFAULT, rows_inside=20, rows_scoring=20, left_ns=40_000_000) is None
    )
    assert admission.refusal(1, DEFAULT, rows_inside=20, rows_scoring=0, left_ns=10_000_000) is None


def test_service_rate_is_measured_only_while_rows_wait() -> None:
    """1,000 rows in 100 ms are 100 us each; an idle second in between does not count."""
    rate = ServiceRate()
    assert rate.wait_ns(1_000) == 0
    rate.on_queue_nonempty(0)
    rate.record_answered(400, RATE_SAMPLE_NS // 2)
    rate.record_answered(600, 2 * RATE_SAMPLE_NS)
    assert rate.row_ns == pytest.approx(100_000)
    rate.on_queue_empty()
    rate.record_answered(RATE_SAMPLE_ROWS, 10**9)
    rate.on_queue_nonempty(10**9)
    rate.record_answered(1_000, 10**9 + 2 * RATE_SAMPLE_NS)
    assert rate.row_ns == pytest.approx(100_000)


def test_service_rate_follows_a_faster_sample_at_once_and_a_slower_one_slowly() -> None:
    """Too few rows make no sample; a slower sample has a weight of .3."""
    rate = ServiceRate()
    rate.row_ns = 100_000.0
    rate.on_queue_nonempty(0)
    rate.record_answered(RATE_SAMPLE_ROWS - 1, 10 * RATE_SAMPLE_NS)
    assert rate.row_ns == 100_000
    rate.on_queue_empty()
    rate.on_queue_nonempty(0)
    rate.record_answered(1_000, 2 * 10**8)
    assert rate.row_ns == pytest.approx(130_000)
    rate.record_answered(1_000, 2 * 10**8 + RATE_SAMPLE_NS)
    assert rate.row_ns == pytest.approx(50_000)


def test_service_rate_is_measured_from_batches_that_leave_calls_waiting() -> None:
    """The sample begins with the first of two batches and ends with the second."""
    admission = Admission(1_000, 90, 50)
    queue = CallQueue(admission)
    for _ in range(2 * RATE_SAMPLE_ROWS):
        queue.admit(call(), arrived_ns=0, deadline_ns=LONG_NS)
    next_handles(queue, RATE_SAMPLE_ROWS, now_ns=1)
    admission.rate.record_answered(RATE_SAMPLE_ROWS, 1 + RATE_SAMPLE_NS)
    assert admission.rate.row_ns == pytest.approx(RATE_SAMPLE_NS / RATE_SAMPLE_ROWS)
    next_handles(queue, RATE_SAMPLE_ROWS, now_ns=2 + RATE_SAMPLE_NS)
    admission.rate.record_answered(RATE_SAMPLE_ROWS, 10**10)
    assert admission.rate.row_ns == pytest.approx(RATE_SAMPLE_NS / RATE_SAMPLE_ROWS)


def test_call_queue_takes_critical_calls_first_and_keeps_the_order_of_arrival() -> None:
    """Three of five calls fit. They are both CRITICAL ones and the oldest DEFAULT one."""
    queue = CallQueue(Admission(1_000, 90, 50))
    kinds = [SHEDDABLE, DEFAULT, CRITICAL, DEFAULT, CRITICAL]
    handles = [queue.admit(call(kind), arrived_ns=0, deadline_ns=LONG_NS) for kind in kinds]

    assert next_handles(queue, 3) == [handles[1], handles[2], handles[4]]
    assert next_handles(queue, 3) == [handles[0], handles[3]]
    assert next_handles(queue, 3) == []


def test_call_queue_takes_a_critical_call_before_an_older_one_of_another_model() -> None:
    """Criticality counts before age, across models."""
    queue = CallQueue(Admission(1_000, 90, 50))
    queue.admit(call(DEFAULT, model="churn"), arrived_ns=0, deadline_ns=LONG_NS)
    queue.admit(call(CRITICAL, model="fraud"), arrived_ns=5, deadline_ns=LONG_NS)
    first = queue.pop_calls(10)
    assert first is not None
    assert first.model == "fraud"


def test_call_queue_takes_the_newest_first_once_calls_wait_long() -> None:
    """The oldest is first up to 100 ms, then the newest, because the oldest will expire soon."""
    queue = CallQueue(Admission(1_000, 90, 50))
    handles = [queue.admit(call(), arrived_ns=n, deadline_ns=LONG_NS) for n in range(4)]

    assert next_handles(queue, 1, now_ns=NEWEST_FIRST_NS) == handles[:1]
    assert next_handles(queue, 2, now_ns=NEWEST_FIRST_NS + 2) == handles[2:]
    assert next_handles(queue, 2, now_ns=NEWEST_FIRST_NS + 2) == handles[1:2]


def test_call_queue_skips_finished_calls_and_releases_their_rows() -> None:
    """Finished calls may wait anywhere in the queue or be in a batch already."""
    queue = CallQueue(Admission(1_000, 90, 50))
    handles = [queue.admit(call(rows=2), arrived_ns=0, deadline_ns=LONG_NS) for _ in range(4)]
    queue.finish_call(handles[0])
    queue.finish_call(handles[3])
    assert (queue.rows_inside, queue.rows_waiting) == (4, 4)
    assert next_handles(queue, 2, now_ns=2 * NEWEST_FIRST_NS) == handles[2:3]
    queue.finish_call(handles[2])
    queue.finish_call(handles[2])
    assert (queue.rows_inside, queue.rows_waiting) == (2, 2)
    assert next_handles(queue, 8) == handles[1:2]
    queue.finish_call(handles[1])
    assert (queue.rows_inside, queue.rows_waiting) == (0, 0)


def test_call_queue_refuses_calls_beyond_its_rows_with_the_numbers() -> None:
    """The refusal names the rows inside, the rows of the call, and the bound."""
    rows_max = 4
    queue = CallQueue(Admission(rows_max, 100, 100))
    queue.admit(call(rows=rows_max), arrived_ns=0, deadline_ns=LONG_NS)
    with pytest.raises(
        RefusedError, match=f"{rows_max} rows are inside and 1 more asked for"
    ) as refused:
        queue.admit(call(), arrived_ns=0, deadline_ns=LONG_NS)
    assert refused.value.refusal.code is Code.UNAVAILABLE


def test_settings_refuse_shares_out_of_order() -> None:
    """SHEDDABLE may not fill more than DEFAULT."""
    with pytest.raises(ValueError, match="sheddable_rows_pct=95"):
        Settings(sheddable_rows_pct=95)
