"""What it costs to turn one MGET's replies into a model's matrix, in microseconds.

    python -m benchmarks.micro.row_decode --rows 64 --features 20

Prints microseconds (the best of several rounds) for the parts of one batch: keys, id hashes,
decode with all rows whole, decode with some missing, and, to compare, a frombuffer a row.
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
    """Return the fastest round's microseconds a call."""
    return min(timeit.repeat(work, number=calls, repeat=ROUNDS)) / calls * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--calls", type=int, default=2_000, help="a round")
    asked = parser.parse_args()

    view = View(
        name="measured",
        entities=("subscriber",),
        features=tuple(Feature(name=f"f{number}") for number in range(asked.features)),
        ttl_ms=86_400_000,
        transform="SELECT * FROM source",
    )
    rows = ViewRows(view)
    ids = [b"S%07d" % number for number in range(asked.rows)]
    hashes = id_hashes(ids)
    now_ms = time.time_ns() // 1_000_000
    shape = (asked.rows, asked.features)
    values = np.random.default_rng(1).random(shape, dtype=np.float32)
    stored = rows.pack(ids, np.full(asked.rows, now_ms), values, np.ones(shape, dtype=np.bool_))
    gaps: list[bytes | None] = [None if n % 16 == 3 else row for n, row in enumerate(stored)]

    def one_by_one() -> object:
        return np.stack([np.frombuffer(row, "<f4", offset=32) for row in stored])

    print(f"{asked.rows} rows x {asked.features} features, {rows.row_bytes} bytes a row, us:")
    for name, work in {
        "keys": lambda: rows.store_keys(ids),
        "id hashes": lambda: id_hashes(ids),
        "decode, all whole": lambda: rows.decode(stored, hashes, now_ms),
        "decode, 1 in 16 missing": lambda: rows.decode(gaps, hashes, now_ms),
        "(a frombuffer a row, unchecked)": one_by_one,
    }.items():
        print(f"  {name:32} {best_us(work, asked.calls):7.1f}")


if __name__ == "__main__":
    main()
