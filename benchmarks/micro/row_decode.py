"""Measures how long it takes to turn the replies of one MGET into a model's matrix.

    python -m benchmarks.micro.row_decode --rows 64 --features 20

The command prints the microseconds of each part of one batch, the best of several rounds: keys, id
hashes, decoding with every row present, decoding with some rows missing. For comparison it prints
the time of one numpy.frombuffer a row, without any check.
"""

import argparse
import time
import timeit
from collections.abc import Callable

import numpy as np

from features.entity_ids import id_hashes
from features.rows import ViewRows
from features.views import Feature, View

ROUNDS = 15


def best_us(work: Callable[[], object], calls: int) -> float:
    """Return the microseconds of one call of *work* in the fastest of ROUNDS rounds."""
    return min(timeit.repeat(work, number=calls, repeat=ROUNDS)) / calls * 1e6


def main() -> None:
    """Measure every part, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--calls", type=int, default=2_000, help="a round")
    arguments = parser.parse_args()

    # A view and its stored rows, one in sixteen of them missing in `with_gaps`.
    view = View(
        name="measured",
        entities=("subscriber",),
        features=tuple(Feature(name=f"f{number}") for number in range(arguments.features)),
        ttl_ms=86_400_000,
        transform="SELECT * FROM source",
    )
    rows = ViewRows(view)
    ids = [b"S%07d" % number for number in range(arguments.rows)]
    hashes = id_hashes(ids)
    now_ms = time.time_ns() // 1_000_000
    shape = (arguments.rows, arguments.features)
    values = np.random.default_rng(1).random(shape, dtype=np.float32)
    stored = rows.pack(ids, np.full(arguments.rows, now_ms), values, np.ones(shape, dtype=np.bool_))
    with_gaps: list[bytes | None] = [None if n % 16 == 3 else row for n, row in enumerate(stored)]

    def frombuffer_each_row() -> object:
        return np.stack([np.frombuffer(row, "<f4", offset=32) for row in stored])

    # Time each part.
    print(
        f"{arguments.rows} rows x {arguments.features} features, {rows.row_bytes} bytes a row, us:"
    )
    for name, work in {
        "keys": lambda: rows.store_keys(ids),
        "id hashes": lambda: id_hashes(ids),
        "decode, all present": lambda: rows.decode(stored, hashes, now_ms),
        "decode, 1 in 16 missing": lambda: rows.decode(with_gaps, hashes, now_ms),
        "(a frombuffer a row, unchecked)": frombuffer_each_row,
    }.items():
        print(f"  {name:32} {best_us(work, arguments.calls):7.1f}")


if __name__ == "__main__":
    main()
