"""Chooses the held-out rows by a hash, so that the choice depends on no order, run or machine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

HASH_BUCKETS = 1_000_000


def is_held_out(model: str, keys: Sequence[bytes], share: float) -> NDArray[np.bool_]:
    """Return (N,) bool, True for the rows that no version of *model* is fitted on.

    keys    the key of each row. Rows with the same key are on the same side.
    share   share of the distinct keys that is held out, 0 to 1. The keys of a smaller share are
            among those of a larger share.
    """
    salt = b"held-out\x00" + model.encode() + b"\x00"
    limit = round(share * HASH_BUCKETS)
    return np.array(
        [xxh3_64_intdigest(salt + key) % HASH_BUCKETS < limit for key in keys], dtype=np.bool_
    )
