"""Journals of real processes that are killed, or that fill their disk."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from journal.reader import JournalReader
from journal.segment import JournalKind
from journal.tape import SegmentWriter

pytestmark = pytest.mark.walk

WRITES_UNTIL_KILLED = """
import sys
from concurrent.futures import Future
from pathlib import Path
from journal.segment import JournalKind
from journal.writer import JournalAppender
writer = JournalAppender(Path(sys.argv[1]), JournalKind.OUTCOMES, segment_bytes_max=20_000)
number = 0
while True:
    for _ in range(50):
        writer.append(b"%08d" % number * 9)
        number += 1
    writer.submit(b"%08d" % number * 9).result()
    number += 1
    print(number, flush=True)
"""

FILLS_A_SMALL_DISK = """
import resource, sys, time
from pathlib import Path
from journal.segment import JournalKind
from journal.writer import JournalAppender
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
writer = JournalAppender(Path(sys.argv[1]), JournalKind.OUTCOMES)
for number in range(500):
    writer.append(b"%08d" % number * 9)
    if number % 50 == 49:
        try:
            writer.submit(b"last of fifty").result()
        except Exception as error:
            assert type(error).__name__ == "JournalRefusedError", error
assert not writer.healthy
full = writer.dropped
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
end = time.monotonic() + 10
while not writer.healthy:
    assert time.monotonic() < end
    time.sleep(.01)
writer.submit(b"room again").result()
writer.close()
print(writer.written, writer.dropped, full)
"""


def record_numbers(folder: Path) -> list[int]:
    """Return the record record_numbers in the journal, in order."""
    return [int(payload[:8]) for payload, _ in JournalReader(folder, JournalKind.OUTCOMES)]


def test_journal_after_kill_9_has_every_acknowledged_record(tmp_path: Path) -> None:
    """Each of twenty kills leaves a prefix of the records with every acknowledged one."""
    rng = random.Random(2)
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_UNTIL_KILLED, str(folder)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            for _ in range(rng.randrange(1, 60)):
                child.stdout.readline()
            child.kill()
            acknowledged = [int(line) for line in child.stdout.read().split()]

        assert SegmentWriter(folder, JournalKind.OUTCOMES, 1, lambda: 0, boot_id=1).recover() == []
        numbers_read = record_numbers(folder)
        assert numbers_read == list(range(len(numbers_read)))
        assert len(numbers_read) >= max(acknowledged, default=1)


def test_journal_counts_records_that_a_full_disk_refuses(tmp_path: Path) -> None:
    """Written and dropped records add up.

    The segment stays intact, and space makes it healthy again.
    """
    done = subprocess.run(
        [sys.executable, "-c", FILLS_A_SMALL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    written, dropped, full = map(int, done.stdout.split())

    payloads = [payload for payload, _ in JournalReader(tmp_path, JournalKind.OUTCOMES)]

    assert len(payloads) == written
    assert written + dropped == 511
    assert dropped == full > 300
    assert payloads[-1] == b"room again"
