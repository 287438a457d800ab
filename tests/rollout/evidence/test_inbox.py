"""The inbox: every window once, in time order, whoever sent it in whatever order."""

import random
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import window_pb2
from rollout.evidence.inbox import Inbox, Second, by_model, source_name
from tests.property_examples import examples
from tests.rollout.scripted_parts import NS, SOURCE, START, batch, window


def ns(seconds: float) -> int:
    """Monotonic ns, *seconds* after START."""
    return START * NS + round(seconds * NS)


def keys_of(seconds: list[Second]) -> list[tuple[int, int, list[int]]]:
    """Return (second, revision, sorted error keys) of each closed second."""
    return [
        (
            one.second - START,
            one.revision,
            sorted(key for w in one.windows for r in w.records for key in r.key_hash),
        )
        for one in seconds
    ]


def test_a_second_closes_half_a_second_after_its_end() -> None:
    """Not before, not twice; by the gateways' time, not by our wall clock."""
    inbox = Inbox("churn")
    inbox.accept(batch(1, window("canary", 0, errors=[1]), sent_s=1.05), ns(5001.05))
    assert inbox.closes_in_ns(ns(5001.05)) == 450_000_000
    assert inbox.close(ns(5001.49)) == []
    assert keys_of(inbox.close(ns(5001.5))) == [(0, 1, [1])]
    assert inbox.close(ns(5002)) == []
    assert inbox.closes_in_ns(ns(5002)) is None


def test_a_duplicate_changes_nothing_and_is_counted() -> None:
    """A batch sent again after a broken stream is known by its sequence."""
    inbox = Inbox("churn")
    one = batch(1, window("canary", 0, errors=[1]), sent_s=1.0)
    assert len(inbox.accept(one, ns(1))) == 1
    assert inbox.accept(one, ns(1.1)) == []
    assert inbox.duplicate_batches == 1
    assert keys_of(inbox.close(ns(2))) == [(0, 1, [1])]


def test_a_late_window_is_counted_and_left_out() -> None:
    """What comes after its second closed changes no evidence, and is not silent."""
    inbox = Inbox("churn")
    inbox.accept(batch(1, window("canary", 0), sent_s=1.0), ns(1))
    inbox.close(ns(1.6))
    inbox.accept(batch(2, window("canary", 0, errors=[1]), sent_s=1.7), ns(1.7))
    assert inbox.close(ns(9)) == []
    assert (inbox.late_windows, inbox.late_at_ns) == (1, ns(1.7))


@pytest.mark.parametrize("ahead", [20, 3_600])
def test_a_clock_that_is_ahead_makes_no_other_late(ahead: int) -> None:
    """For 5 s one of three is ahead: the others' windows all close, and its own when it is right.

    What it told of the far future is counted as late, so that somebody looks.
    """
    sources = [window_pb2.Source(gateway=name, boot_id=1) for name in "abc"]
    inbox, closed = Inbox("churn"), []
    for now in range(1, 60):
        for source in sources:
            moved = ahead if source.gateway == "b" and 10 <= now < 15 else 0
            made = window("canary", now - 1 + moved, errors=[now])
            inbox.accept(batch(now, made, sent_s=now + moved, source=source), ns(now))
        closed += keys_of(inbox.close(ns(now + 0.6)))
    for second in range(58):
        told = [key for at, _, keys in closed for key in keys if at == second]
        assert told.count(second + 1) == (2 if 9 <= second < 14 else 3)
    assert inbox.late_windows == (0 if ahead == 20 else 5)


def test_a_lone_clock_that_was_ahead_is_recovered_from() -> None:
    """The first that told its time was an hour ahead: when it is right, seconds close again."""
    inbox, closed = Inbox("churn"), []
    for now in range(1, 10):
        moved = 3_600 if now == 1 else 0
        made = window("canary", now - 1 + moved, errors=[now])
        inbox.accept(batch(now, made, sent_s=now + moved), ns(now))
        closed += keys_of(inbox.close(ns(now + 0.6)))
    assert [second for second, _, _ in closed] == [3_600, *range(2, 9)]


def test_a_gap_is_waited_for_and_then_given_up() -> None:
    """Half a second for the missing batch; then the ones behind it count, and it is counted."""
    inbox = Inbox("churn")
    inbox.accept(batch(1, sent_s=1.0), ns(1))
    assert inbox.accept(batch(3, window("canary", 1, errors=[3]), sent_s=2.0), ns(2)) == []
    assert inbox.skip_gaps(ns(2.4)) == []
    assert len(inbox.skip_gaps(ns(2.5))) == 1
    assert inbox.lost_batches == 1
    assert inbox.sequences == {source_name(SOURCE): 3}
    assert inbox.accept(batch(2, window("canary", 1, errors=[2]), sent_s=1.9), ns(2.6)) == []


@examples(20)
@given(st.randoms(use_true_random=False))
def test_any_partition_and_order_gives_the_same_seconds(draw: random.Random) -> None:
    """Over 4 workers, shuffled, some twice: the closed seconds are the same."""
    sources = [window_pb2.Source(gateway="g", slot=slot, boot_id=1) for slot in range(4)]
    expected: dict[tuple[int, int], list[int]] = {}
    sent = []
    for source in sources:
        for sequence in range(1, 6):
            key = draw.getrandbits(32)
            second, revision = sequence - 1, draw.choice([1, 2])
            expected.setdefault((second, revision), []).append(key)
            made = window("canary", second, revision=revision, errors=[key])
            sent.append(batch(sequence, made, sent_s=1.0, source=source))
    order = sent + draw.sample(sent, 6)
    draw.shuffle(order)
    inbox = Inbox("churn")
    for source in sources:
        inbox.follow(source_name(source), 0, ns(0))
    for one in order:
        inbox.accept(one, ns(1))
    inbox.accept(batch(6, sent_s=7.0, source=sources[0]), ns(7))

    closed = inbox.close(ns(7))

    assert keys_of(closed) == [(s, r, sorted(keys)) for (s, r), keys in sorted(expected.items())]
    assert inbox.duplicate_batches == 6


def test_after_a_restart_known_senders_may_catch_up_first() -> None:
    """Nothing closes while one is behind; at most three seconds are waited for one that died."""
    other = window_pb2.Source(gateway="g", slot=1, boot_id=9)
    inbox = Inbox("churn")
    inbox.follow(source_name(SOURCE), 4, ns(10))
    inbox.follow(source_name(other), 4, ns(10))
    inbox.restore([window("canary", 2, errors=[1])])
    inbox.resume(ns(10), ns(10))
    assert inbox.closes_in_ns(ns(10)) == 3 * NS
    inbox.accept(batch(5, window("canary", 3, errors=[2]), sent_s=10.1), ns(10.1))
    assert inbox.close(ns(10.2)) == []
    inbox.accept(batch(5, window("canary", 3, errors=[3]), sent_s=4.1, source=other), ns(10.3))
    assert inbox.close(ns(10.4)) == []
    inbox.accept(batch(6, sent_s=10.5, source=other), ns(10.5))
    assert keys_of(inbox.close(ns(10.6))) == [(2, 1, [1]), (3, 1, [2, 3])]

    inbox = Inbox("churn")
    inbox.follow(source_name(other), 4, ns(10))
    inbox.resume(ns(10), ns(10))
    inbox.accept(batch(1, window("canary", 9), sent_s=10.1), ns(10.1))
    assert inbox.close(ns(12.9)) == []
    assert len(inbox.close(ns(13.0))) == 1


def test_a_hundred_workers_and_thirty_models_take_less_than_a_second() -> None:
    """One second of everybody's windows is dealt with before the next one is there."""
    inboxes = [Inbox(f"m{number}") for number in range(30)]
    batches = []
    for slot in range(100):
        windows = [
            window("canary", 0, model=inbox._model, clean=range(slot * 100, slot * 100 + 50))
            for inbox in inboxes
        ]
        source = window_pb2.Source(gateway="g", slot=slot, boot_id=1)
        batches.append(batch(1, *windows, sent_s=1.0, source=source))
    began = thread_time()
    for one in batches:
        for inbox in inboxes:
            inbox.accept(one, ns(1))
    closed = [len(second.windows) for inbox in inboxes for second in inbox.close(ns(2))]
    assert closed == [100] * 30
    assert thread_time() - began < 1.0  # of this thread: neighbours are not timed


def test_workers_long_gone_are_forgotten() -> None:
    """Ten minutes of silence, and a sender costs no more memory."""
    inbox = Inbox("churn")
    inbox.accept(batch(1, sent_s=1.0), ns(1))
    inbox.forget_silent(ns(600))
    assert inbox.sequences
    inbox.forget_silent(ns(602))
    assert not inbox.sequences


def test_each_model_is_told_of_its_own_windows_under_the_same_number() -> None:
    """Also a model with no window in the batch: its sender is alive, and no batch is missing."""
    mine, other = window("canary", 0), window("canary", 0, model="other")
    guard = window_pb2.HardGuard(model="other", version="2")
    sent = batch(7, mine, other, sent_s=1.0, guards=[guard])
    told = by_model(sent, {"churn", "quiet"})
    assert set(told) == {"churn", "quiet"}
    assert list(told["churn"].windows) == [mine]
    assert not told["quiet"].windows
    for part in told.values():
        assert (part.sequence, part.source, list(part.guards)) == (7, sent.source, [guard])
        assert part.sent_unix_ns == sent.sent_unix_ns
