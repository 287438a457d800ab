"""The inbox counts every window once, in time order, in whatever order it came."""

import random
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import window_pb2
from rollout.evidence.inbox import (
    ClosedSecond,
    Inbox,
    InboxStatistics,
    SourceStatistics,
    source_name,
    split_by_model,
)
from tests.property_examples import examples
from tests.rollout.scripted_parts import NS, SCRIPT_START_S, SOURCE, make_batch, make_window


def monotonic_ns_at(seconds: float) -> int:
    """Return the monotonic ns that are *seconds* after SCRIPT_START_S."""
    return SCRIPT_START_S * NS + round(seconds * NS)


def keys_of(seconds: list[ClosedSecond]) -> list[tuple[int, int, list[int]]]:
    """Return (second, revision, sorted error keys) of each closed second."""
    return [
        (
            closed.second - SCRIPT_START_S,
            closed.revision,
            sorted(key for w in closed.windows for r in w.records for key in r.key_hash),
        )
        for closed in seconds
    ]


def test_inbox_closes_a_second_half_a_second_after_its_end() -> None:
    """It closes once, by the gateways' time and not by the controller's wall clock."""
    inbox = Inbox("churn")
    inbox.accept(
        make_batch(1, make_window("canary", 0, errors=[1]), sent_s=1.05), monotonic_ns_at(5001.05)
    )
    assert inbox.closes_in_ns(monotonic_ns_at(5001.05)) == 450_000_000
    assert inbox.close_seconds(monotonic_ns_at(5001.49)) == []
    assert keys_of(inbox.close_seconds(monotonic_ns_at(5001.5))) == [(0, 1, [1])]
    assert inbox.close_seconds(monotonic_ns_at(5002)) == []
    assert inbox.closes_in_ns(monotonic_ns_at(5002)) is None


def test_inbox_counts_a_duplicate_batch_and_drops_it() -> None:
    """A batch that is sent again after a broken stream has a known sequence number."""
    inbox = Inbox("churn")
    batch = make_batch(1, make_window("canary", 0, errors=[1]), sent_s=1.0)
    assert len(inbox.accept(batch, monotonic_ns_at(1))) == 1
    assert inbox.accept(batch, monotonic_ns_at(1.1)) == []
    assert inbox.duplicate_batches == 1
    assert keys_of(inbox.close_seconds(monotonic_ns_at(2))) == [(0, 1, [1])]


def test_inbox_counts_a_late_window_and_leaves_it_out() -> None:
    """A window that comes after its second has closed changes no evidence."""
    inbox = Inbox("churn")
    inbox.accept(make_batch(1, make_window("canary", 0), sent_s=1.0), monotonic_ns_at(1))
    inbox.close_seconds(monotonic_ns_at(1.6))
    inbox.accept(
        make_batch(2, make_window("canary", 0, errors=[1]), sent_s=1.7), monotonic_ns_at(1.7)
    )
    assert inbox.close_seconds(monotonic_ns_at(9)) == []
    assert (inbox.late_windows, inbox.late_at_ns) == (1, monotonic_ns_at(1.7))


@pytest.mark.parametrize("ahead", [20, 3_600])
def test_inbox_with_one_clock_ahead_closes_the_windows_of_the_others(ahead: int) -> None:
    """One of three clocks is ahead for 5 s.

    The windows of the others all close, and its own close when it is right again. Windows of the
    far future are counted as late.
    """
    sources = [window_pb2.Source(gateway=name, boot_id=1) for name in "abc"]
    inbox, closed = Inbox("churn"), []
    for now in range(1, 60):
        for source in sources:
            moved = ahead if source.gateway == "b" and 10 <= now < 15 else 0
            window = make_window("canary", now - 1 + moved, errors=[now])
            inbox.accept(
                make_batch(now, window, sent_s=now + moved, source=source), monotonic_ns_at(now)
            )
        closed += keys_of(inbox.close_seconds(monotonic_ns_at(now + 0.6)))
    for second in range(58):
        closed_keys = [key for at, _, second_keys in closed for key in second_keys if at == second]
        assert closed_keys.count(second + 1) == (2 if 9 <= second < 14 else 3)
    assert inbox.late_windows == (0 if ahead == 20 else 5)


def test_inbox_recovers_when_its_only_clock_was_ahead() -> None:
    """The first batch was an hour ahead. When the clock is right, seconds close again."""
    inbox, closed = Inbox("churn"), []
    for now in range(1, 10):
        moved = 3_600 if now == 1 else 0
        window = make_window("canary", now - 1 + moved, errors=[now])
        inbox.accept(make_batch(now, window, sent_s=now + moved), monotonic_ns_at(now))
        closed += keys_of(inbox.close_seconds(monotonic_ns_at(now + 0.6)))
    assert [second for second, _, _ in closed] == [3_600, *range(2, 9)]


def test_inbox_waits_half_a_second_for_a_missing_batch() -> None:
    """Then the batches behind the gap count, and the missing one is counted as lost."""
    inbox = Inbox("churn")
    inbox.accept(make_batch(1, sent_s=1.0), monotonic_ns_at(1))
    assert (
        inbox.accept(
            make_batch(3, make_window("canary", 1, errors=[3]), sent_s=2.0), monotonic_ns_at(2)
        )
        == []
    )
    assert inbox.skip_gaps(monotonic_ns_at(2.4)) == []
    assert len(inbox.skip_gaps(monotonic_ns_at(2.5))) == 1
    assert inbox.lost_batches == 1
    assert inbox.sequences == {source_name(SOURCE): 3}
    assert (
        inbox.accept(
            make_batch(2, make_window("canary", 1, errors=[2]), sent_s=1.9), monotonic_ns_at(2.6)
        )
        == []
    )


@examples(20)
@given(st.randoms(use_true_random=False))
def test_inbox_closes_the_same_seconds_for_any_partition_and_order(rng: random.Random) -> None:
    """Four workers send in any order, and some batches twice."""
    sources = [window_pb2.Source(gateway="g", slot=slot, boot_id=1) for slot in range(4)]
    expected: dict[tuple[int, int], list[int]] = {}
    sent = []
    for source in sources:
        for sequence in range(1, 6):
            key = rng.getrandbits(32)
            second, revision = sequence - 1, rng.choice([1, 2])
            expected.setdefault((second, revision), []).append(key)
            window = make_window("canary", second, revision=revision, errors=[key])
            sent.append(make_batch(sequence, window, sent_s=1.0, source=source))
    order = sent + rng.sample(sent, 6)
    rng.shuffle(order)
    inbox = Inbox("churn")
    for source in sources:
        inbox.start_source_at(source_name(source), 0, monotonic_ns_at(0))
    for batch in order:
        inbox.accept(batch, monotonic_ns_at(1))
    inbox.accept(make_batch(6, sent_s=7.0, source=sources[0]), monotonic_ns_at(7))

    closed = inbox.close_seconds(monotonic_ns_at(7))

    assert keys_of(closed) == [(s, r, sorted(keys)) for (s, r), keys in sorted(expected.items())]
    assert inbox.duplicate_batches == 6


def test_inbox_after_a_restart_waits_for_known_sources() -> None:
    """Nothing closes while a source is behind, for three seconds at most."""
    other = window_pb2.Source(gateway="g", slot=1, boot_id=9)
    inbox = Inbox("churn")
    inbox.start_source_at(source_name(SOURCE), 4, monotonic_ns_at(10))
    inbox.start_source_at(source_name(other), 4, monotonic_ns_at(10))
    inbox.restore_windows([make_window("canary", 2, errors=[1])])
    inbox.begin_catch_up(monotonic_ns_at(10), monotonic_ns_at(10))
    assert inbox.closes_in_ns(monotonic_ns_at(10)) == 3 * NS
    inbox.accept(
        make_batch(5, make_window("canary", 3, errors=[2]), sent_s=10.1), monotonic_ns_at(10.1)
    )
    assert inbox.close_seconds(monotonic_ns_at(10.2)) == []
    inbox.accept(
        make_batch(5, make_window("canary", 3, errors=[3]), sent_s=4.1, source=other),
        monotonic_ns_at(10.3),
    )
    assert inbox.close_seconds(monotonic_ns_at(10.4)) == []
    inbox.accept(make_batch(6, sent_s=10.5, source=other), monotonic_ns_at(10.5))
    assert keys_of(inbox.close_seconds(monotonic_ns_at(10.6))) == [(2, 1, [1]), (3, 1, [2, 3])]

    inbox = Inbox("churn")
    inbox.start_source_at(source_name(other), 4, monotonic_ns_at(10))
    inbox.begin_catch_up(monotonic_ns_at(10), monotonic_ns_at(10))
    inbox.accept(make_batch(1, make_window("canary", 9), sent_s=10.1), monotonic_ns_at(10.1))
    assert inbox.close_seconds(monotonic_ns_at(12.9)) == []
    assert len(inbox.close_seconds(monotonic_ns_at(13.0))) == 1


def test_inbox_waits_for_batches_that_came_while_the_controller_stood_still() -> None:
    """Their windows are counted. A source that its clock made untrusted is not waited for."""
    other = window_pb2.Source(gateway="bad", slot=0, boot_id=9)
    inbox = Inbox("churn")
    inbox.accept(
        make_batch(1, make_window("canary", 0, errors=[1]), sent_s=1.0), monotonic_ns_at(1)
    )
    inbox.accept(make_batch(1, sent_s=1.0, source=other), monotonic_ns_at(1))
    inbox.ignore_clock_of(source_name(other))
    # The controller stands still from 1.2 to 3.7 and then acts before it reads.
    inbox.wait_for_sources(monotonic_ns_at(3.7))
    assert inbox.close_seconds(monotonic_ns_at(3.7)) == []
    for number in (2, 3):
        assert inbox.close_seconds(monotonic_ns_at(3.7)) == []
        window = make_window("canary", number - 1, errors=[number])
        inbox.accept(make_batch(number, window, sent_s=float(number)), monotonic_ns_at(3.7))
    assert keys_of(inbox.close_seconds(monotonic_ns_at(3.7))) == [
        (0, 1, [1]),
        (1, 1, [2]),
        (2, 1, [3]),
    ]
    assert inbox.late_windows == 0


def test_inbox_does_not_wait_for_a_worker_that_was_gone_before_the_pause() -> None:
    """Its last batch is older than those of the others, so it would hold every pause for 3 s."""
    gone = window_pb2.Source(gateway="g", slot=1, boot_id=9)
    inbox = Inbox("churn")
    inbox.accept(make_batch(1, sent_s=1.0, source=gone), monotonic_ns_at(1))
    for number, sent_s in ((1, 1.0), (2, 5.0)):
        inbox.accept(make_batch(number, sent_s=sent_s), monotonic_ns_at(sent_s))
    inbox.wait_for_sources(monotonic_ns_at(7.7))
    window = make_window("canary", 6, errors=[1])
    inbox.accept(make_batch(3, window, sent_s=7.0), monotonic_ns_at(7.7))
    assert keys_of(inbox.close_seconds(monotonic_ns_at(7.7))) == [(6, 1, [1])]


def test_inbox_takes_less_than_a_second_for_100_workers_and_30_models() -> None:
    """One second of windows is processed before the next one comes."""
    inboxes = [Inbox(f"m{number}") for number in range(30)]
    batches = []
    for slot in range(100):
        windows = [
            make_window("canary", 0, model=inbox._model, clean=range(slot * 100, slot * 100 + 50))
            for inbox in inboxes
        ]
        source = window_pb2.Source(gateway="g", slot=slot, boot_id=1)
        batches.append(make_batch(1, *windows, sent_s=1.0, source=source))
    began = thread_time()
    for batch in batches:
        for inbox in inboxes:
            inbox.accept(batch, monotonic_ns_at(1))
    closed = [
        len(second.windows)
        for inbox in inboxes
        for second in inbox.close_seconds(monotonic_ns_at(2))
    ]
    assert closed == [100] * 30
    assert thread_time() - began < 1.0  # of this thread: neighbours are not timed


def test_inbox_statistics_is_a_snapshot_of_open_seconds_and_sources() -> None:
    """Two windows wait in one second. One batch waits behind a gap, and one window was late."""
    # Batch 1 is closed. Batch 2 has a late window and two open ones. Batch 3 never comes.
    inbox = Inbox("churn")
    inbox.accept(make_batch(1, make_window("canary", 0), sent_s=1.0), monotonic_ns_at(1))
    inbox.close_seconds(monotonic_ns_at(1.6))
    windows = [make_window(arm, 1) for arm in ("canary", "production")]
    inbox.accept(make_batch(2, make_window("canary", 0), *windows, sent_s=2.0), monotonic_ns_at(2))
    inbox.accept(make_batch(4, sent_s=2.1), monotonic_ns_at(2.1))
    statistics = inbox.statistics(monotonic_ns_at(2.25))
    assert statistics == InboxStatistics(
        model="churn",
        closed_second=SCRIPT_START_S,
        open_seconds=1,
        windows_waiting=2,
        late_windows=1,
        lost_batches=0,
        duplicate_batches=0,
        catching_up=(),
        sources=(
            SourceStatistics(
                source=source_name(SOURCE),
                sequence=2,
                batches_waiting=1,
                silent_ns=150_000_000,
                clock_offset_ns=0,
            ),
        ),
    )
    # The snapshot does not change with the inbox.
    inbox.begin_catch_up(monotonic_ns_at(3), monotonic_ns_at(3))
    assert inbox.statistics(monotonic_ns_at(3)).catching_up == (source_name(SOURCE),)
    assert statistics.catching_up == ()
    assert len(inbox.close_seconds(monotonic_ns_at(7))) == 1


def test_inbox_forgets_sources_that_were_silent_for_ten_minutes() -> None:
    """A worker that is gone costs no memory."""
    inbox = Inbox("churn")
    inbox.accept(make_batch(1, sent_s=1.0), monotonic_ns_at(1))
    inbox.forget_silent_sources(monotonic_ns_at(600))
    assert inbox.sequences
    inbox.forget_silent_sources(monotonic_ns_at(602))
    assert not inbox.sequences


def test_split_by_model_gives_each_model_its_windows_under_the_same_sequence() -> None:
    """A model without windows gets the batch too: its source is alive, and no batch is missing."""
    churn_window, other = make_window("canary", 0), make_window("canary", 0, model="other")
    guard = window_pb2.HardGuard(model="other", version="2")
    sent = make_batch(7, churn_window, other, sent_s=1.0, guards=[guard])
    batches = split_by_model(sent, {"churn", "quiet"})
    assert set(batches) == {"churn", "quiet"}
    assert list(batches["churn"].windows) == [churn_window]
    assert not batches["quiet"].windows
    for part in batches.values():
        assert (part.sequence, part.source, list(part.guards)) == (7, sent.source, [guard])
        assert part.sent_unix_ns == sent.sent_unix_ns
