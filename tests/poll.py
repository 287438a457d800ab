"""Waiting for a condition, with an end."""

import asyncio
from collections.abc import Callable


async def wait_until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Return once *condition* holds; AssertionError when it does not within *within_s*."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        assert loop.time() < end, f"not within {within_s} s"
        await asyncio.sleep(0.002)
