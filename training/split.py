"""Which entities are held out: by hash, so that it never depends on order, run or machine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

HASH_BUCKETS = 1_000_000


def is_held_out(model: str, keys: Sequence[bytes], share: float) -> NDArray[np.bool_]:
    """Return (N,) bool: the rows that no version of *model* is fitted on.

    keys    one a row; rows with the same key fall on the same side.
    share   of the distinct keys, 0 to 1. A smaller share is part of a larger one, so a recipe may
            change it without ever judging a version on rows its predecessor was fitted on twice.
    """
    salt = b"held-out\x00" + model.encode() + b"\x00"
    limit = round(share * HASH_BUCKETS)
    return np.array(
        [xxh3_64_intdigest(salt + key) % HASH_BUCKETS < limit for key in keys], dtype=np.bool_
    )
