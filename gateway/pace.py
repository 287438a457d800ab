"""When a grpc.aio server fetches its next call: not while the house is full of calls.

A call that Python has seen costs some 110 us even when it is refused, half of what an answer
costs. A call that waits inside grpc's core costs nothing, and holds one of its connection's
streams (`streams_max`), so that its client waits as well. grpc.aio fetches calls without end, by
one coroutine of its server; that coroutine is run here, step by step, and its next step waits
while the house is full.

The coroutine has no public name. Where it is not found (another grpcio), calls are fetched
without end, as before; a test notices.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import grpc.aio

FETCHING = "_server_main_loop"
"""grpc.aio's coroutine that fetches calls, by the end of its qualified name."""


class Pace:
    """One server's. `full` is asked before each call is fetched; say `eased` when calls leave."""

    def __init__(self, full: Callable[[], bool]) -> None:
        self._full = full
        self._room: asyncio.Future[None] | None = None
        self.found = False
        """Whether the coroutine was found, so that this pace holds."""

    async def start(self, server: grpc.aio.Server) -> None:
        """Start *server* under this pace."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(self._task)
        try:
            await server.start()
        finally:
            loop.set_task_factory(before)

    def eased(self) -> None:
        """Calls have left: fetch on, unless it is full still."""
        if self._room is not None and not self._full():
            self._room.set_result(None)
            self._room = None

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Any,
        **more: Any,  # noqa: ANN401  the loop's own
    ) -> "asyncio.Task[Any]":
        if getattr(coro, "__qualname__", "").endswith(FETCHING):
            self.found = True
            coro = self._paced(coro)
        return asyncio.Task(coro, loop=loop, **more)

    async def _paced(self, fetching: Coroutine[Any, Any, Any]) -> None:
        await _Steps(fetching, self._wait)

    async def _wait(self) -> None:
        while self._full():
            self._room = asyncio.get_running_loop().create_future()
            await self._room


class _Steps:
    """Runs a coroutine as `await` would, but waits before each step after the first."""

    def __init__(
        self, steps: Coroutine[Any, Any, Any], wait: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._steps = steps
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        while True:
            try:
                waited_for = self._steps.send(None)
            except StopIteration:
                return
            try:
                yield waited_for
                yield from self._wait().__await__()
            except BaseException as error:
                self._steps.throw(error)
                raise
