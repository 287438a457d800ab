"""Measures how long `turnout features replay` takes for a million journaled rows.

    python -m benchmarks.offline.replay --rows 1000000 --stored 12000000

It ingests rows of 20 features, 12 for each entity over half a year, and writes a journal of calls
of the last day whose vectors are those of the offline join. In 2 % of them the vector is that of 30
days before, as if the online store was late, and in 1 % one number is another. Then it replays the
journal in a process of its own: a line says the time, the CPU time, the most memory of that
process, and what was found. Exit code 1: it took longer than --seconds, or it did not find what
was planted.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.offline.store import (
    CONTRACT,
    NUMBERS,
    ROWS_OF_AN_ENTITY,
    SPAN_MS,
    START_MS,
    in_process,
    make_source,
    run_ingest,
)
from features.offline import OfflineStore, Spine
from features.replay.compare import ReplayReport, compare_served
from features.replay.served_rows import served_rows
from journal.segment import JournalKind
from journal.served import read_served_batches
from journal.writer import JournalAppender
from protos.journal_pb2 import ServedBatch
from turnout.commands.features_replay import chunk_rows

SECONDS_MAX = 60.0
DAY_MS = 86_400_000
CALLS_OF_A_RECORD = 50
PART_ROWS = 100_000
LATE_MS = 30 * DAY_MS
LATE_SHARE, SKEWED_SHARE = 0.02, 0.01
SKEWED = NUMBERS.index("n3")
OTHER_NUMBER = -1.0


def make_journal(folder: Path, rows: int, stored: int, memory_mb: int) -> int:
    """Write the calls, and return how many vectors have another number."""
    store, rng = OfflineStore(folder / "store", memory_mb=memory_mb), np.random.default_rng(7)
    skewed = 0
    with JournalAppender(
        folder / "journal", JournalKind.SERVED, bytes_waiting_max=1 << 30
    ) as journal:
        for start in range(0, rows, PART_ROWS):
            count = min(PART_ROWS, rows - start)
            # Calls of the last day, some of which get what was known long before.
            entities = rng.integers(0, max(1, stored // ROWS_OF_AN_ENTITY), count)
            ids = [f"S{number:09d}" for number in entities]
            at_ms = np.sort(rng.integers(0, DAY_MS, count)) + START_MS + SPAN_MS - DAY_MS
            chosen = rng.random(count)
            read_ms = at_ms - LATE_MS * (chosen < LATE_SHARE)
            joined = store.training_set(CONTRACT, Spine(ids={"subscriber": ids}, as_of_ms=read_ms))
            vectors = joined.values
            differs = chosen > 1 - SKEWED_SHARE
            vectors[differs, SKEWED] = OTHER_NUMBER
            skewed += int(differs.sum())
            for record in _records(ids, at_ms, vectors, joined.flags):
                journal.append(record.SerializeToString())
    return skewed


def _records(
    ids: list[str], at_ms: np.ndarray, vectors: np.ndarray, flags: np.ndarray
) -> Iterator[ServedBatch]:
    """Yield records as a gateway's worker writes them, of calls of one row."""
    for start in range(0, len(ids), CALLS_OF_A_RECORD):
        part = slice(start, start + CALLS_OF_A_RECORD)
        count = len(ids[part])
        yield ServedBatch(
            model="bench",
            version="1",
            model_contract=CONTRACT.model_contract,
            at_unix_ns=(at_ms[part] * 1_000_000).astype("<i8").tobytes(),
            role=bytes(count),
            row_count=np.ones(count, dtype="<u4").tobytes(),
            prediction_ids=bytes(64 * count),
            key_hash=bytes(8 * count),
            row_flags=flags[part].astype("<u4").tobytes(),
            width=CONTRACT.width,
            vectors=vectors[part].astype("<f4").tobytes(),
            outputs=1,
            scores=bytes(4 * count),
            entity_ids=ids[part],
        )


def run_replay(folder: Path, rows: int, memory_mb: int) -> ReplayReport:
    """Compare the journal with the offline store, as the command does."""
    batches = read_served_batches(folder / "journal")
    each = chunk_rows(CONTRACT.width)
    chunks = served_rows(batches, CONTRACT, rows_max=rows, chunk_rows=each)
    store = OfflineStore(folder / "store", memory_mb=memory_mb)
    return compare_served(store, CONTRACT, chunks)


def main() -> None:
    """Make store and journal, replay, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000, help="journaled rows")
    parser.add_argument("--stored", type=int, default=2_000_000, help="rows of the offline store")
    parser.add_argument("--memory-mb", type=int, default=2_000, help="memory of DuckDB")
    parser.add_argument("--seconds", type=float, default=SECONDS_MAX, help="the promise")
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-", dir=options.folder) as name:
        folder, rows, memory_mb = Path(name), options.rows, options.memory_mb
        make_source(folder, options.stored)
        in_process(run_ingest, folder, memory_mb)
        planted = in_process(make_journal, folder, rows, options.stored, memory_mb)[0]
        report, seconds, cpu, mb = in_process(run_replay, folder, rows, memory_mb)
    print(
        f"{report.rows:,} rows replayed against {options.stored:,} in {seconds:.1f} s, "
        f"{cpu:.1f} s CPU, {mb:,} MB; the promise is {options.seconds:g} s"
    )
    late, lag_ms, _ = report.lag_ms("bench")
    print(f"late: {late:,} rows, by {lag_ms / DAY_MS:.1f} days in the median")
    for result in report.skewed:
        print(f"{result.name}: {result.skew:,} rows differ, {planted:,} planted; {result.cause}")
    found = [(result.name, result.skew) for result in report.skewed]
    is_right = report.rows == rows and found == [(f"bench:{NUMBERS[SKEWED]}", planted)]
    sys.exit(0 if is_right and seconds <= options.seconds else 1)


if __name__ == "__main__":
    main()
