"""Rows of calls: C calls, R rows, and the (C + 1,) offsets that tie them together."""

import numpy as np
from numpy.typing import NDArray


def counts_of(row_offsets: NDArray[np.uint32]) -> NDArray[np.intp]:
    """(C,) rows a call, from (C + 1,) offsets."""
    offsets = row_offsets.astype(np.intp)
    return offsets[1:] - offsets[:-1]
