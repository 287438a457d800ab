"""The read deadline: the time within which a call's message must arrive."""

import asyncio
from typing import Any, Protocol

from gateway.status import Code, Refusal, RefusedError

TOO_SLOW = Refusal(Code.UNAVAILABLE, "the call's message did not arrive in time (message_ms_max)")
"""The bound is ours, and the caller has time left: its gRPC may call again."""


class ReadContext(Protocol):
    """The part of grpc.aio's ServicerContext that reads a streamed request."""

    def read(self) -> Any:  # noqa: ANN401  an awaitable of grpcio's own kind
        """Return an awaitable of the next message, or of grpc.aio.EOF."""
        ...


class ReadDeadline:
    """Reads messages under one time limit, with one timer for all reads.

    A timer for each read (`asyncio.timeout`) costs a single call 27 us of its 170 us. Here a read
    is an entry in a dict. All reads have the same limit, so the oldest entry is due first.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._due: dict[asyncio.Task[Any], float] = {}
        """Reading task -> loop time at which its read is due, oldest first."""
        self._overdue: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read_message(self, context: ReadContext) -> object:
        """Return the next message or grpc.aio.EOF; RefusedError TOO_SLOW past the limit."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._due[task] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_later(self._limit_s, self._cancel_overdue)
        try:
            message: object = await context.read()
        except asyncio.CancelledError:
            # `_cancel_overdue` has cancelled it, and nothing else has.
            if task in self._overdue and task.uncancel() <= 0:
                raise RefusedError(TOO_SLOW) from None
            raise
        finally:
            del self._due[task]
            self._overdue.discard(task)
        return message

    def _cancel_overdue(self) -> None:
        """Cancel the reads that are overdue; set the timer for the next one."""
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        for task, due in self._due.items():
            if due > now:
                self._timer = loop.call_later(due - now, self._cancel_overdue)
                return
            if task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
