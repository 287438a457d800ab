"""The appender counts what it drops, syncs in time, and stops after a failed sync."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from journal.errors import JournalRefusedError
from journal.reader import JournalReader
from journal.segment import RECORD_BYTES_MAX, JournalKind, list_segments
from journal.tape import PARTS_MAX, SegmentWriter
from journal.writer import JournalAppender

BOOT = 7


def read_served_payloads(folder: Path) -> list[bytes]:
    """Return every payload of the folder's served segments."""
    return [payload for payload, _ in JournalReader(folder, JournalKind.SERVED)]


def poll_until(holds: Callable[[], bool]) -> None:
    """Poll *holds* for at most five seconds."""
    end = monotonic() + 5
    while not holds():
        assert monotonic() < end, "did not come true within 5 s"
        sleep(0.002)


def test_appender_writes_records_in_order_over_segments(tmp_path: Path) -> None:
    """No segment exceeds its size, and the names have the boot id."""
    payloads = [b"%05d" % number for number in range(2000)]
    with JournalAppender(
        tmp_path, JournalKind.SERVED, segment_bytes_max=4096, clock_ns=lambda: 10**18, boot_id=BOOT
    ) as writer:
        for payload in payloads:
            writer.append(payload)

    assert read_served_payloads(tmp_path) == payloads
    assert (writer.written, writer.dropped, writer.healthy) == (2000, 0, True)
    names = list_segments(tmp_path, JournalKind.SERVED)
    assert len(names) == 7
    assert max((tmp_path / str(name)).stat().st_size for name in names) <= 4096
    assert {name.boot_id for name in names} == {BOOT}


def test_append_durably_returns_after_the_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns after an fdatasync and not before."""
    syncs: list[int] = []
    genuine = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (syncs.append(file), genuine(file))[1])

    async def outcome(writer: JournalAppender) -> list[bytes]:
        await writer.append_durably(b"churned")
        assert syncs
        return read_served_payloads(tmp_path)

    begun = monotonic()

    with JournalAppender(tmp_path, JournalKind.SERVED, commit_ms_max=60_000) as writer:
        assert asyncio.run(outcome(writer)) == [b"churned"]
        assert monotonic() - begun < 5


def test_append_is_synced_within_the_commit_time(tmp_path: Path) -> None:
    """No caller waits, and a power cut costs commit_ms_max at most."""
    with JournalAppender(tmp_path, JournalKind.SERVED, commit_ms_max=20) as writer:
        writer.append(b"one")
        poll_until(lambda: writer.written == 1)


def test_appender_counts_records_that_a_full_queue_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stuck disk costs records and never a wait."""
    release = threading.Event()
    genuine = os.writev
    monkeypatch.setattr(os, "writev", lambda file, v: (release.wait(5), genuine(file, v))[1])
    with JournalAppender(tmp_path, JournalKind.SERVED, bytes_waiting_max=100) as writer:
        for _ in range(30):
            writer.append(b"0123456789")
        refused = writer.submit(b"0123456789")
        assert isinstance(refused.exception(1), JournalRefusedError)
        assert not writer.healthy
        release.set()
        poll_until(lambda: writer.healthy)
    assert writer.dropped == 21
    assert writer.written == 10
    assert len(read_served_payloads(tmp_path)) == 10


def test_append_optional_leaves_half_of_the_queue_to_other_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stuck disk optional records are dropped first, and counted apart."""
    release = threading.Event()
    genuine = os.writev
    monkeypatch.setattr(os, "writev", lambda file, v: (release.wait(5), genuine(file, v))[1])
    with JournalAppender(tmp_path, JournalKind.SERVED, bytes_waiting_max=100) as writer:
        optional = [writer.append_optional(b"0123456789") for _ in range(8)]
        for _ in range(8):
            writer.append(b"9876543210")
        release.set()
    assert optional == [True] * 5 + [False] * 3
    assert (writer.dropped_optional, writer.dropped, writer.written) == (3, 3, 10)
    assert read_served_payloads(tmp_path) == [b"0123456789"] * 5 + [b"9876543210"] * 5


def test_append_optional_drops_what_is_larger_than_a_record(tmp_path: Path) -> None:
    """Nothing is raised, because nothing waits for such a record."""
    with JournalAppender(tmp_path, JournalKind.SERVED, bytes_waiting_max=1 << 40) as writer:
        assert not writer.append_optional(bytes(RECORD_BYTES_MAX + 1))
    assert (writer.dropped_optional, writer.dropped) == (1, 0)


def test_appender_stops_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no acknowledgement and no second sync, and every later record is dropped."""
    calls: list[int] = []

    def fail(file: int) -> None:
        calls.append(file)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with JournalAppender(tmp_path, JournalKind.SERVED) as writer:
        assert isinstance(writer.submit(b"one").exception(5), JournalRefusedError)
        assert not writer.healthy
        writer.append(b"two")
        assert isinstance(writer.submit(b"three").exception(5), JournalRefusedError)
    assert len(calls) == 1
    assert (writer.written, writer.dropped) == (0, 3)


def test_records_are_whole_although_the_kernel_takes_them_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write has at most 1,024 parts, and may end in the middle of any of them."""
    genuine = os.writev
    most = list[int]()

    def piecewise(file: int, parts: list[memoryview]) -> int:
        most.append(len(parts))
        # All but the last five bytes of what was given.
        whole = b"".join(parts)
        return genuine(file, [whole[: max(1, len(whole) - 5)]])

    monkeypatch.setattr(os, "writev", piecewise)
    tape = SegmentWriter(tmp_path, JournalKind.SERVED, 1 << 20, time.time_ns, 1)
    payloads = [b"%d" % number for number in range(600)]
    assert tape.write_records(payloads) == 600
    tape.close()
    assert max(most) == PARTS_MAX
    assert read_served_payloads(tmp_path) == payloads


@pytest.mark.parametrize("refused_by", ["fdatasync", "writev"])
def test_appender_whose_thread_ends_by_an_error_refuses_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_by: str
) -> None:
    """A system without the call is one cause. Callers that wait are refused, and drops counted."""

    def fail(*_: object) -> None:
        raise AttributeError(refused_by)

    monkeypatch.setattr(os, refused_by, fail)
    with JournalAppender(tmp_path, JournalKind.SERVED) as writer:
        for payload in (b"one", b"two"):
            assert isinstance(writer.submit(payload).exception(5), JournalRefusedError)
        writer.append(b"three")
        assert not writer.healthy
    assert (writer.written, writer.dropped) == (0, 3)


def test_appender_recovers_when_its_folder_becomes_usable(tmp_path: Path) -> None:
    """The program starts although its journal cannot be written."""
    obstacle = tmp_path / "journal"
    obstacle.write_text("a file where the folder should be")
    with JournalAppender(obstacle, JournalKind.SERVED) as writer:
        assert isinstance(writer.submit(b"one").exception(5), JournalRefusedError)
        assert not writer.healthy
        obstacle.unlink()
        writer.submit(b"two").result(5)
        poll_until(lambda: writer.healthy)
    assert writer.dropped == 1
    assert read_served_payloads(obstacle) == [b"two"]


def test_recover_leaves_the_segment_of_a_living_writer(tmp_path: Path) -> None:
    """A second worker's start does not touch the segment that another one writes."""
    with JournalAppender(tmp_path, JournalKind.SERVED) as first:
        first.submit(b"one").result(5)
        [name] = list_segments(tmp_path, JournalKind.SERVED)
        with (tmp_path / str(name)).open("ab") as torn:
            torn.write(b"\x09\x00")
        size = (tmp_path / str(name)).stat().st_size
        with JournalAppender(tmp_path, JournalKind.SERVED) as second:
            second.submit(b"two").result(5)
        assert (tmp_path / str(name)).stat().st_size == size
    with JournalAppender(tmp_path, JournalKind.SERVED) as third:
        third.submit(b"three").result(5)
    assert (tmp_path / str(name)).stat().st_size == size - 2
