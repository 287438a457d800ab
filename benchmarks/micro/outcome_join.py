"""Measures two ways to find the score of a prediction when its outcome comes.

    python -m benchmarks.micro.outcome_join                 # a minute; prints a table
    python -m benchmarks.micro.outcome_join --days 2 --predictions 100000

The first way reads the score in the prediction id. The second looks the ids up in an index of all
predictions: a Parquet file a day, sorted by key hash, joined by DuckDB on one thread. The table
also has what it costs to write ids that carry scores (docs/decisions/0075). Reading and joining are
measured in processor time.
"""

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np

from gateway.native_library import load_native_library
from journal.prediction_id import (
    masking_key,
    pack_body,
    read_prediction_id,
    write_prediction_id,
    write_prediction_ids,
)
from journal.score_code import ScoreRule

KEY = bytes(range(32))
RULE = ScoreRule(probability=True, threshold=0.5)
TURNS = 200
BATCHES = (16, 64, 256)


def fastest_s(work: Callable[[], object], turns: int = TURNS) -> float:
    """Return the seconds of the fastest of some turns, so that a busy machine disturbs little."""
    best = float("inf")
    for _ in range(turns):
        started_s = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started_s)
    return best


def id_of(number: int) -> bytes:
    """Return the prediction id of one call."""
    return write_prediction_id(
        KEY,
        role=1,
        slot=0,
        sequence=number,
        model_hash=5,
        version=bytes(8),
        revision=1,
        at_ms=1_790_000_000_000,
        key_hash=number,
        boot_id=7,
        rows=1,
        score=0.25,
        rule=RULE,
    )


def write_s(calls: int) -> float:
    """Return the seconds for the ids of one batch, as gateways write them."""
    body = pack_body(
        sealed=False,
        role=1,
        slot=0,
        model_hash=5,
        version=bytes(8),
        revision=1,
        at_ms=1_790_000_000_000,
        boot_id=7,
    )
    write = getattr(load_native_library(), "prediction_ids", write_prediction_ids)
    hashes, offsets = np.arange(calls, dtype=np.uint64), np.arange(calls + 1, dtype=np.uint32)
    scores, mask_with = np.full((calls, 1), 0.25, dtype=np.float32), masking_key(KEY)
    return fastest_s(
        lambda: write(KEY, body, 3, hashes, None, scores, offsets, RULE, mask_with, None)
    )


def index_s(folder: Path, days: int, predictions: int, outcomes: int) -> tuple[float, float]:
    """Return the processor time of one join, s, and the bytes of the index for a prediction."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    # Ids look like random bytes, so four MD5 digests stand for one.
    digests = " || ".join(f"md5((range + {salt}000000000000)::VARCHAR)" for salt in range(1, 5))
    for day in range(days):
        first = day * predictions
        connection.execute(
            f"COPY (SELECT unhex({digests}) AS id, hash(range) AS key_hash, "
            f"random()::FLOAT AS score FROM range({first}, {first + predictions}) "
            "ORDER BY key_hash) "
            f"TO '{folder}/{day}.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
    files = f"read_parquet('{folder}/*.parquet')"
    connection.execute(f"CREATE TABLE outcomes AS SELECT id FROM {files} USING SAMPLE {outcomes}")
    started_s = time.process_time()
    joined = connection.execute(
        f"SELECT count(score) FROM outcomes JOIN {files} USING (id)"
    ).fetchall()
    elapsed_s = time.process_time() - started_s
    assert joined == [(outcomes,)]
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    return elapsed_s, size / (days * predictions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both ways and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--days", type=int, default=5, help="days of predictions in the index")
    parser.add_argument("--predictions", type=int, default=2_000_000, help="predictions a day")
    parser.add_argument("--outcomes", type=int, default=20_000)
    options = parser.parse_args(arguments)
    # Writing.
    for calls in BATCHES:
        seconds = write_s(calls)
        print(f"write {calls:4} ids of a batch: {seconds * 1e6:8.1f} us")
    first = secrets.randbelow(1 << 20)
    single_s = fastest_s(lambda: [id_of(first + number) for number in range(64)]) / 64
    print(f"write a single id:       {single_s * 1e6:8.1f} us")
    # Reading, each id once.
    ids = [id_of(number) for number in range(options.outcomes)]
    np.random.default_rng(1).shuffle(ids)
    started_s = time.process_time()
    scores = [read_prediction_id(prediction_id, KEY).score for prediction_id in ids]
    read_s = time.process_time() - started_s
    assert len(set(scores)) == 1
    print(f"score in the id:         {read_s:8.2f} s for {options.outcomes:,} outcomes")
    # Looking up.
    with tempfile.TemporaryDirectory() as folder:
        joined_s, size = index_s(Path(folder), options.days, options.predictions, options.outcomes)
    rows = options.days * options.predictions
    print(
        f"index joined by DuckDB:  {joined_s:8.2f} s for {options.outcomes:,} outcomes and "
        f"{rows:,} predictions; {size:.0f} bytes a prediction"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
