"""Shared by the tests of the online reader: stored keys, a started reader, and waiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import redis

from features.errors import OnlineStoreError
from features.online.reader import OnlineReader, OnlineSettings

TIMEOUT_S = 0.03
KEYS = [b"key-%04d" % number for number in range(512)]


def stored_value(key: bytes) -> bytes:
    """The value of *key*, 81 bytes long, so that replies come in several pieces."""
    return key + b":" + key * 8


def store_all_keys(url: str) -> None:
    """Write every key of KEYS with its value."""
    with redis.Redis.from_url(url) as client:
        client.mset({key: stored_value(key) for key in KEYS})


@asynccontextmanager
async def started_reader(
    url: str, settings: OnlineSettings | None = None
) -> AsyncIterator[OnlineReader]:
    """A started reader, closed at the end."""
    reader = OnlineReader(url, settings=settings)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.close()


async def read_failure_reason(reader: OnlineReader, timeout_s: float = TIMEOUT_S) -> str:
    """Read 64 keys; return the reason of the failure, or "" after correct values."""
    try:
        values = await reader.mget(KEYS[:64], timeout_s)
    except OnlineStoreError as error:
        return error.reason
    assert values == [stored_value(key) for key in KEYS[:64]]
    return ""


async def seconds_until(happened: Callable[[], bool], within_s: float = 5.0) -> float:
    """Poll every millisecond until *happened*; return the seconds, or fail after *within_s*."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < within_s, f"did not happen within {within_s} s"
        await asyncio.sleep(0.001)
    return time.monotonic() - began


async def seconds_until_answered(reader: OnlineReader, within_s: float = 5.0) -> float:
    """Read every 5 ms until a read is answered; return the seconds."""
    began = time.monotonic()
    while await read_failure_reason(reader):
        assert time.monotonic() - began < within_s, f"no answer within {within_s} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - began
