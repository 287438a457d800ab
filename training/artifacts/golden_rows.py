"""Chooses and writes the rows that a version seals with their scores.

Golden rows are scored at every load of the version. Background rows are what its explanations
compare a score with.
"""

import io

import numpy as np
from numpy.typing import NDArray

HELD_OUT_ROWS = 192
EDGE_ROWS = 64
BACKGROUND_ROWS = 200
"""As many as registry.explanation reads. The mean of 200 rows is within a tenth of a standard
deviation of the mean of all, and a row of a leaf's table costs the same for any number."""


def choose_golden_rows(
    held_out: NDArray[np.float32], edges: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (G, F): at most 192 held-out and 64 edge rows, evenly spaced among the given rows."""
    return np.concatenate([_spread_rows(held_out, HELD_OUT_ROWS), _spread_rows(edges, EDGE_ROWS)])


def choose_background_rows(rows: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return at most BACKGROUND_ROWS of the (N, F) rows, drawn by *seed*, in their order."""
    if len(rows) <= BACKGROUND_ROWS:
        return rows
    drawn = np.random.default_rng(seed).choice(len(rows), BACKGROUND_ROWS, replace=False)
    return rows[np.sort(drawn)]


def write_golden(inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> bytes:
    """Return golden.npz, or background.npz, with `inputs` (G, F) and `outputs` (G, K), float32.

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
