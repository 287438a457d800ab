"""Old segments are deleted by age and size, oldest first; what is written or read stays."""

import fcntl
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from host.clock import DAY_S
from journal import retention
from journal.progress import READER_DAYS_MAX, forget_reader, note_progress, read_progress
from journal.reader import JournalReader
from journal.retention import Bounds, delete_old_segments
from journal.segment import JournalKind, SegmentName, frame_record, list_segments, segment_header
from journal.writer import JournalAppender
from tests.journal.test_writer import poll_until

NOW_S = 1_800_000_000.0
SIZE = 1_000


def add_segment(folder: Path, days_ago: float, kind: JournalKind = JournalKind.SERVED) -> Path:
    """Write a segment of SIZE bytes that began and ended so long before NOW_S; return its file."""
    began_s = NOW_S - days_ago * DAY_S
    path = folder / str(SegmentName(int(began_s * 1e3), 1, int(days_ago * 1e4), kind))
    header = segment_header(kind)
    path.write_bytes(header + frame_record(b"x" * (SIZE - len(header) - 8)))
    os.utime(path, (began_s, began_s))
    return path


def files(folder: Path) -> set[Path]:
    """Return the files of a folder."""
    return set(folder.iterdir())


def test_segments_beyond_the_age_are_deleted_and_counted(tmp_path: Path) -> None:
    """The newest record of a segment counts. Both kinds have the same bound."""
    young = add_segment(tmp_path, 29)
    add_segment(tmp_path, 31)
    add_segment(tmp_path, 32, JournalKind.OUTCOMES)

    use = delete_old_segments(tmp_path, Bounds(days_max=30), NOW_S)

    assert files(tmp_path) == {young}
    assert use.deleted == {("served", "age"): 1, ("outcomes", "age"): 1}
    assert use.kind_bytes == {"served": SIZE, "outcomes": 0}


def test_oldest_segments_are_deleted_until_the_size_is_kept(tmp_path: Path) -> None:
    """Served calls and outcomes share the bound, so they lose the same days."""
    add_segment(tmp_path, 4)
    add_segment(tmp_path, 3, JournalKind.OUTCOMES)
    kept = {add_segment(tmp_path, 2), add_segment(tmp_path, 1, JournalKind.OUTCOMES)}

    use = delete_old_segments(tmp_path, Bounds(bytes_max=2 * SIZE), NOW_S)

    assert files(tmp_path) == kept
    assert use.deleted == {("served", "size"): 1, ("outcomes", "size"): 1}
    assert delete_old_segments(tmp_path, Bounds(bytes_max=2 * SIZE), NOW_S).deleted == {}


def test_nothing_is_deleted_without_bounds(tmp_path: Path) -> None:
    """The journal is only measured. A folder that is not there yet is empty."""
    add_segment(tmp_path, 4_000)
    assert delete_old_segments(tmp_path, Bounds(), NOW_S).kind_bytes["served"] == SIZE
    assert delete_old_segments(tmp_path / "none", Bounds(1, 1), NOW_S).kind_bytes["served"] == 0


def test_segment_that_a_worker_writes_stays(tmp_path: Path) -> None:
    """However old and large it is; the next one is deleted instead."""
    written = add_segment(tmp_path, 9)
    add_segment(tmp_path, 8)
    with written.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        use = delete_old_segments(tmp_path, Bounds(days_max=1, bytes_max=1), NOW_S)
    assert files(tmp_path) == {written}
    assert use.deleted == {("served", "age"): 1}


def test_segments_stay_while_a_reader_is_in_the_folder(tmp_path: Path) -> None:
    """The reader has listed them. They are deleted when it has ended."""
    for days in (3, 2, 1):
        add_segment(tmp_path, days)
    reading = iter(JournalReader(tmp_path, JournalKind.SERVED))
    next(reading)
    assert delete_old_segments(tmp_path, Bounds(days_max=1), NOW_S).deleted == {}
    assert len(list(reading)) == 2
    assert delete_old_segments(tmp_path, Bounds(days_max=0.5), NOW_S).deleted == {
        ("served", "age"): 3
    }


def test_days_left_are_those_to_the_bound_at_the_pace_of_the_last_day(tmp_path: Path) -> None:
    """4,000 bytes came in half a day, and there is room for 16,000 more: two days."""
    for hours in (12, 9, 6, 3):
        add_segment(tmp_path, hours / 24)

    def days_left(days_max: float, bytes_max: int) -> float:
        return delete_old_segments(tmp_path, Bounds(days_max, bytes_max), NOW_S).days_left

    assert days_left(0, 20 * SIZE) == pytest.approx(2)
    # 80 segments are ten days of this pace: less than the bound, so age deletes first.
    assert days_left(5, 80 * SIZE) == 5
    assert days_left(20, 80 * SIZE) == pytest.approx(9.5)
    assert days_left(0, 4 * SIZE) == 0
    # Without a bound of bytes the disk ends it.
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert days_left(0, 0) == pytest.approx(free / (8 * SIZE), rel=0.1)


def test_days_left_are_endless_when_nothing_is_written(tmp_path: Path) -> None:
    """The last record is older than a day, and no bound deletes it."""
    add_segment(tmp_path, 3)
    assert delete_old_segments(tmp_path, Bounds(), NOW_S).days_left == math.inf
    assert delete_old_segments(tmp_path, Bounds(days_max=7), NOW_S).days_left == 7


@pytest.mark.walk
def test_worker_ends_a_segment_when_it_is_old(tmp_path: Path) -> None:
    """So that a quiet worker's records are deleted too. A segment without records goes on."""
    now_ns = [0]
    with JournalAppender(
        tmp_path, JournalKind.SERVED, clock_ns=lambda: now_ns[0], segment_ms_max=1_000
    ) as writer:
        poll_until(lambda: len(list_segments(tmp_path, JournalKind.SERVED)) == 1)
        now_ns[0] = 2 * 10**9
        writer.append(b"one")
        poll_until(lambda: len(list_segments(tmp_path, JournalKind.SERVED)) == 2)
    assert [payload for payload, _ in JournalReader(tmp_path, JournalKind.SERVED)] == [b"one"]


def note(folder: Path, reader: str, offsets: dict[str, int], days_ago: float = 0) -> None:
    """Note the progress of a reader so long before NOW_S."""
    note_progress(folder, reader, offsets)
    noted_s = NOW_S - days_ago * DAY_S
    os.utime(folder / f"{reader}.progress.json", (noted_s, noted_s))


def segments(folder: Path) -> set[Path]:
    """Return the segments of a folder."""
    return {path for path in folder.iterdir() if path.suffix == ".trnj"}


@pytest.mark.parametrize("bounds", [Bounds(days_max=1), Bounds(bytes_max=1)], ids=["age", "size"])
def test_segments_stay_until_every_reader_has_read_them(tmp_path: Path, bounds: Bounds) -> None:
    """A segment that is half read, and one that a reader does not name, wait for it."""
    read, half, unknown = (add_segment(tmp_path, days) for days in (4, 3, 2))
    offsets = {read.name: SIZE, half.name: SIZE // 2}
    note(tmp_path, "monitoring", offsets)
    note(tmp_path, "archive", {path.name: SIZE for path in (read, half, unknown)})

    use = delete_old_segments(tmp_path, bounds, NOW_S)
    assert segments(tmp_path) == {half, unknown}
    assert use.unread_bytes == 2 * SIZE
    assert [count for (_, cause), count in use.deleted.items() if cause != "unread"] == [1]

    # They go when it has read them, or will not come back.
    note(tmp_path, "monitoring", {**offsets, half.name: SIZE})
    assert delete_old_segments(tmp_path, bounds, NOW_S).unread_bytes == SIZE
    assert segments(tmp_path) == {unknown}
    forget_reader(tmp_path, "monitoring")
    assert delete_old_segments(tmp_path, bounds, NOW_S).unread_bytes == 0
    assert segments(tmp_path) == set()


def test_unread_segments_are_deleted_oldest_first_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted apart, and no more are deleted than the disk needs."""
    for days in (4, 3, 2):
        add_segment(tmp_path, days)
    note(tmp_path, "monitoring", {})
    usage = SimpleNamespace(total=100 * SIZE, free=4 * SIZE)
    monkeypatch.setattr(retention, "shutil", SimpleNamespace(disk_usage=lambda _: usage))

    use = delete_old_segments(tmp_path, Bounds(days_max=1), NOW_S)
    assert use.deleted == {("served", "unread"): 1}
    assert use.unread_bytes == 2 * SIZE
    assert len(segments(tmp_path)) == 2


def test_reader_that_is_gone_keeps_nothing(tmp_path: Path) -> None:
    """After a week without a word the bounds hold, since they are promises about people's data."""
    add_segment(tmp_path, 9)
    note(tmp_path, "monitoring", {}, days_ago=READER_DAYS_MAX + 0.1)
    assert read_progress(tmp_path, NOW_S) == []
    assert delete_old_segments(tmp_path, Bounds(days_max=1), NOW_S).deleted == {
        ("served", "age"): 1
    }


@pytest.mark.parametrize("content", ["", "{", "[]", '{"offsets": 3}', '{"offsets": {"a": "9"}}'])
def test_progress_that_cannot_be_read_counts_as_nothing_read(tmp_path: Path, content: str) -> None:
    """A reader cannot lose its records by a damaged file."""
    (tmp_path / "monitoring.progress.json").write_text(content)
    (progress,) = read_progress(tmp_path, 0)
    assert (progress.reader, progress.offsets) == ("monitoring", {})


def test_note_progress_refuses_a_name_that_is_a_path(tmp_path: Path) -> None:
    """The name is part of a file's name."""
    for name in ("", "../other", "a/b", "A", "x" * 65):
        with pytest.raises(ValueError, match="a reader is named by"):
            note_progress(tmp_path, name, {})
