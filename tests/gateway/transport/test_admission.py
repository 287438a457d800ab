"""Who is let in, and who of those that wait is taken first."""

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
    """A well-formed call of *rows* rows."""
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


def taken(intake: CallQueue, rows_max: int, now_ns: int = 0) -> list[int]:
    """Handles of the next batch."""
    calls = intake.pop_calls(rows_max, now_ns)
    return [] if calls is None else calls.handles.tolist()


def test_sheddable_calls_are_refused_first_and_critical_ones_last() -> None:
    """Of 100 rows: SHEDDABLE may fill 50, DEFAULT and unspecified 90, CRITICAL all."""
    admission = Admission(100, 90, 50)

    def admitted(criticality: int, inside: int) -> bool:
        refusal = admission.refusal(
            1, criticality, rows_inside=inside, rows_scoring=0, left_ns=LONG_NS
        )
        return refusal is None

    for criticality, bound in ((SHEDDABLE, 50), (DEFAULT, 90), (0, 90), (CRITICAL, 100)):
        assert admitted(criticality, bound - 1)
        assert not admitted(criticality, bound)


def test_a_call_that_finds_nobody_inside_is_let_in() -> None:
    """However large it is, and however slow the last ones were."""
    admission = Admission(100, 90, 50)
    admission.rate.row_ns = 1e9
    assert admission.refusal(100, SHEDDABLE, rows_inside=0, rows_scoring=0, left_ns=1) is None


def test_a_call_that_would_be_answered_too_late_is_refused_with_a_pushback() -> None:
    """20 rows ahead at 1 ms a row, and 10 ms left: UNAVAILABLE, in words with the numbers."""
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


def test_the_rate_is_learned_while_rows_wait_and_not_between() -> None:
    """1,000 rows in a stretch of 100 ms: 100 us each; an idle second in between is no slowness."""
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


def test_a_faster_rate_is_believed_at_once_and_a_slower_one_by_and_by() -> None:
    """Few rows say nothing; a slow stretch counts for three tenths."""
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


def test_the_rate_is_learned_from_batches_that_leave_others_waiting() -> None:
    """Two batches' worth of calls: the stretch begins with the first and ends with the last."""
    admission = Admission(1_000, 90, 50)
    intake = CallQueue(admission)
    for _ in range(2 * RATE_SAMPLE_ROWS):
        intake.admit(call(), arrived_ns=0, deadline_ns=LONG_NS)
    taken(intake, RATE_SAMPLE_ROWS, now_ns=1)
    admission.rate.record_answered(RATE_SAMPLE_ROWS, 1 + RATE_SAMPLE_NS)
    assert admission.rate.row_ns == pytest.approx(RATE_SAMPLE_NS / RATE_SAMPLE_ROWS)
    taken(intake, RATE_SAMPLE_ROWS, now_ns=2 + RATE_SAMPLE_NS)
    admission.rate.record_answered(RATE_SAMPLE_ROWS, 10**10)
    assert admission.rate.row_ns == pytest.approx(RATE_SAMPLE_NS / RATE_SAMPLE_ROWS)


def test_critical_calls_are_taken_first_and_the_batch_lies_in_order_of_arrival() -> None:
    """Room for three of five: both CRITICAL ones and the oldest DEFAULT one, as they came."""
    intake = CallQueue(Admission(1_000, 90, 50))
    kinds = [SHEDDABLE, DEFAULT, CRITICAL, DEFAULT, CRITICAL]
    handles = [intake.admit(call(kind), arrived_ns=0, deadline_ns=LONG_NS) for kind in kinds]

    assert taken(intake, 3) == [handles[1], handles[2], handles[4]]
    assert taken(intake, 3) == [handles[0], handles[3]]
    assert taken(intake, 3) == []


def test_a_critical_call_overtakes_an_older_one_of_another_model() -> None:
    """Criticality before age, whatever the model."""
    intake = CallQueue(Admission(1_000, 90, 50))
    intake.admit(call(DEFAULT, model="churn"), arrived_ns=0, deadline_ns=LONG_NS)
    intake.admit(call(CRITICAL, model="fraud"), arrived_ns=5, deadline_ns=LONG_NS)
    first = intake.pop_calls(10)
    assert first is not None
    assert first.model == "fraud"


def test_once_calls_wait_long_the_newest_are_answered() -> None:
    """Oldest first within 100 ms; beyond, newest first: the oldest are about to be given up."""
    intake = CallQueue(Admission(1_000, 90, 50))
    handles = [intake.admit(call(), arrived_ns=n, deadline_ns=LONG_NS) for n in range(4)]

    assert taken(intake, 1, now_ns=NEWEST_FIRST_NS) == handles[:1]
    assert taken(intake, 2, now_ns=NEWEST_FIRST_NS + 2) == handles[2:]
    assert taken(intake, 2, now_ns=NEWEST_FIRST_NS + 2) == handles[1:2]


def test_who_left_is_not_taken_and_gives_its_rows_back() -> None:
    """Whether it waited, was taken, or stood at either end of the queue."""
    intake = CallQueue(Admission(1_000, 90, 50))
    handles = [intake.admit(call(rows=2), arrived_ns=0, deadline_ns=LONG_NS) for _ in range(4)]
    intake.finish_call(handles[0])
    intake.finish_call(handles[3])
    assert (intake.rows_inside, intake.rows_waiting) == (4, 4)
    assert taken(intake, 2, now_ns=2 * NEWEST_FIRST_NS) == handles[2:3]
    intake.finish_call(handles[2])
    intake.finish_call(handles[2])
    assert (intake.rows_inside, intake.rows_waiting) == (2, 2)
    assert taken(intake, 8) == handles[1:2]
    intake.finish_call(handles[1])
    assert (intake.rows_inside, intake.rows_waiting) == (0, 0)


def test_a_full_house_says_so() -> None:
    """The refusal names what is inside, what was asked, and what is held."""
    n = 4
    intake = CallQueue(Admission(n, 100, 100))
    intake.admit(call(rows=n), arrived_ns=0, deadline_ns=LONG_NS)
    with pytest.raises(RefusedError, match=f"{n} rows are inside and 1 more asked for") as caught:
        intake.admit(call(), arrived_ns=0, deadline_ns=LONG_NS)
    assert caught.value.refusal.code is Code.UNAVAILABLE


def test_shares_out_of_order_do_not_start() -> None:
    """SHEDDABLE may not fill more than DEFAULT."""
    with pytest.raises(ValueError, match="sheddable_rows_pct=95"):
        Settings(sheddable_rows_pct=95)
