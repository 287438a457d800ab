"""When a row is too old: said once, for the offline join and the online read."""

from typing import overload

import numpy as np
from numpy.typing import NDArray

FORGET_AFTER_TTLS = 2
"""A row older than this many TTLs counts as missing, not stale; the online key goes with it."""


@overload
def is_stale(age_ms: int, ttl_ms: int) -> bool: ...
@overload
def is_stale(age_ms: NDArray[np.int64], ttl_ms: int) -> NDArray[np.bool_]: ...
def is_stale(age_ms: int | NDArray[np.int64], ttl_ms: int) -> bool | NDArray[np.bool_]:
    """Return whether a row of this age, at this TTL, may no longer be used.

    age_ms   the instant asked about minus the row's event time; int or int64 array. Negative
             (the writer's clock is ahead) is fresh.
    ttl_ms   the view's.

    A row is still fresh at exactly its TTL.
    """
    return age_ms > ttl_ms


def is_forgotten(age_ms: NDArray[np.int64], ttl_ms: int) -> NDArray[np.bool_]:
    """Return which rows are so old that they count as never written."""
    return is_stale(age_ms, FORGET_AFTER_TTLS * ttl_ms)


def stale_sql(age: str, ttl_ms: int) -> str:
    """Return `is_stale` as a SQL condition; *age* is a BIGINT expression, milliseconds."""
    return f"(({age}) > {ttl_ms:d})"


def forgotten_sql(age: str, ttl_ms: int) -> str:
    """Return `is_forgotten` as a SQL condition."""
    return stale_sql(age, FORGET_AFTER_TTLS * ttl_ms)
