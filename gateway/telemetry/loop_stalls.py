"""The event loop of a worker, with a clock around each callback, because calls wait for callbacks.

A callback that holds the loop for STALL_NS_MIN or longer is a stall. The worker counts stalls by
their source as turnout_loop_stall_seconds. Timing costs about .4 us a callback, which is .3 % of a
turn of 128 calls. Work that uvloop starts itself is not timed: that on the bytes of a connection.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter_ns
from typing import Any

import uvloop

STALL_NS_MIN = 100_000
"""A shorter callback is no stall. For comparison, a call that is alone takes 150 us."""

SLICE_NS = 50_000
"""Work in slices lets other callbacks run after this time."""
SLICED_NS_MAX = 50_000_000
"""After this time, callbacks in between included, the rest of the work is done without a pause."""

OnStall = Callable[[str, int], None]
"""Called with the source of a stall and its time in ns."""


class TimedLoop(uvloop.Loop):
    """An event loop that times each callback, task step and reader."""

    def __init__(self) -> None:
        super().__init__()
        self.on_stall: OnStall | None = None
        """None: stalls are not counted."""
        self._call_soon = super().call_soon
        self._call_later = super().call_later

    def call_soon(  # type: ignore[override]
        self,
        callback: Any,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        context: Any = None,  # noqa: ANN401
    ) -> asyncio.Handle:
        """Schedule a callback, as every step of a task is (asyncio.AbstractEventLoop)."""
        return self._call_soon(self._run_timed, callback, *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Any,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        context: Any = None,  # noqa: ANN401
    ) -> asyncio.Handle:
        """Schedule a callback from another thread (asyncio.AbstractEventLoop)."""
        return super().call_soon_threadsafe(self._run_timed, callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Any,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        context: Any = None,  # noqa: ANN401
    ) -> asyncio.TimerHandle:
        """Schedule a callback in *delay* seconds, which `call_at` does too (AbstractEventLoop)."""
        return self._call_later(delay, self._run_timed, callback, *args, context=context)

    def add_reader(  # type: ignore[override]
        self,
        fd: Any,  # noqa: ANN401
        callback: Any,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
    ) -> None:
        """Call back whenever *fd* is readable (asyncio.AbstractEventLoop)."""
        super().add_reader(fd, self._run_timed, callback, *args)

    def _run_timed(self, callback: Callable[..., object], *args: object) -> None:
        began_ns = perf_counter_ns()
        try:
            callback(*args)
        finally:
            held_ns = perf_counter_ns() - began_ns
            if held_ns >= STALL_NS_MIN and self.on_stall is not None:
                self.on_stall(callback_name(callback), held_ns)


def callback_name(callback: object) -> str:
    """Return the name of a callback's function; of a task's step, that of its coroutine."""
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        callback = task.get_coro()
    while isinstance(callback, partial):
        callback = callback.func
    # What Cython compiles may have None for a name, as coroutines of grpcio do.
    name = getattr(callback, "__qualname__", None)
    return name if isinstance(name, str) else type(callback).__qualname__


async def run_in_slices(steps: Iterator[None]) -> None:
    """Take the *steps* of some work, and let other callbacks run after each SLICE_NS of them."""
    began_ns = slice_began_ns = perf_counter_ns()
    for _ in steps:
        now_ns = perf_counter_ns()
        if now_ns - slice_began_ns >= SLICE_NS and now_ns - began_ns < SLICED_NS_MAX:
            await asyncio.sleep(0)
            slice_began_ns = perf_counter_ns()
