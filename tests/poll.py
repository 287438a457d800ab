"""Waiting for a condition, with an end."""

import asyncio
from collections.abc import Callable
from typing import Any


async def wait_until(condition: Callable[[], Any], within_s: float = 10.0) -> float:
    """Wait until *condition* is true and return the seconds that it took.

    AssertionError if it is not within *within_s*.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while not condition():
        assert loop.time() - begin < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.002)
    return loop.time() - begin
