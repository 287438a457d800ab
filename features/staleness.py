"""Decides when a row is too old or too new to be used, offline and online alike."""

from typing import overload

import numpy as np
from numpy.typing import NDArray

CLOCK_SKEW_MS_MAX = 3_600_000
"""A row may be dated up to this far in the future, because the clocks of writers differ."""

FORGET_AFTER_TTLS = 2
"""A row older than this many TTLs counts as missing instead of stale. Its online key expires."""


@overload
def is_stale(age_ms: int, ttl_ms: int) -> bool: ...
@overload
def is_stale(age_ms: NDArray[np.int64], ttl_ms: int) -> NDArray[np.bool_]: ...
def is_stale(age_ms: int | NDArray[np.int64], ttl_ms: int) -> bool | NDArray[np.bool_]:
    """Return True if a row of this age is older than the TTL. At exactly the TTL it is fresh.

    age_ms   milliseconds from the row's event time to the instant of the read; an int or an int64
             array. A negative age, from a writer whose clock is ahead, is fresh; `is_from_future`
             refuses larger ones.
    ttl_ms   the view's TTL.
    """
    return age_ms > ttl_ms


def is_forgotten(age_ms: NDArray[np.int64], ttl_ms: int) -> NDArray[np.bool_]:
    """Return True for rows that count as never written: older than FORGET_AFTER_TTLS TTLs."""
    return is_stale(age_ms, FORGET_AFTER_TTLS * ttl_ms)


@overload
def is_from_future(age_ms: int) -> bool: ...
@overload
def is_from_future(age_ms: NDArray[np.int64]) -> NDArray[np.bool_]: ...
def is_from_future(age_ms: int | NDArray[np.int64]) -> bool | NDArray[np.bool_]:
    """Return True for rows dated more than CLOCK_SKEW_MS_MAX after the instant of the read.

    Such a row would be fresh for years, and would keep honest rows out of the store.
    """
    return age_ms < -CLOCK_SKEW_MS_MAX


def stale_sql(age: str, ttl_ms: int) -> str:
    """Return `is_stale` as a SQL condition. *age* is a BIGINT expression in milliseconds."""
    return f"(({age}) > {ttl_ms:d})"


def forgotten_sql(age: str, ttl_ms: int) -> str:
    """Return `is_forgotten` as a SQL condition. *age* is a BIGINT expression in milliseconds."""
    return stale_sql(age, FORGET_AFTER_TTLS * ttl_ms)
