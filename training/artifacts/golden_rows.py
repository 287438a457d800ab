"""Chooses and writes golden rows, whose scores are checked at every load of the version."""

import io

import numpy as np
from numpy.typing import NDArray

HELD_OUT_ROWS = 192
EDGE_ROWS = 64


def choose_golden_rows(
    held_out: NDArray[np.float32], edges: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (G, F): at most 192 held-out and 64 edge rows, evenly spaced among the given rows."""
    return np.concatenate([_spread_rows(held_out, HELD_OUT_ROWS), _spread_rows(edges, EDGE_ROWS)])


def write_golden(inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> bytes:
    """Return golden.npz with `inputs` (G, F) and `outputs` (G, K), float32.

    The same rows give the same bytes, because numpy writes no time into the archive.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        inputs=np.ascontiguousarray(inputs, dtype=np.float32),
        outputs=np.ascontiguousarray(outputs, dtype=np.float32),
    )
    return buffer.getvalue()


def _spread_rows(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
