"""One time limit for many reads: a message that does not come must not hold a call for long."""

import asyncio
from typing import Any, Protocol

from gateway.status import Code, Refusal, RefusedError

TOO_SLOW = Refusal(
    Code.DEADLINE_EXCEEDED, "the call's message did not arrive in time (message_ms_max)"
)


class ReadContext(Protocol):
    """grpc.aio's context of a call that streams in."""

    def read(self) -> Any:  # noqa: ANN401  an awaitable of grpcio's own kind
        """Await the next message, or grpc.aio.EOF."""
        ...


class ReadDeadline:
    """Reads under one limit, and one timer for all of them.

    `asyncio.timeout` a read costs a lone call 27 us of its 170: a timer made and thrown away for
    what never happens. Here a read is an entry in a dict, and since all have the same time, the
    oldest entry is the next one due.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._due: dict[asyncio.Task[Any], float] = {}
        """Loop time, oldest first."""
        self._overdue: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read_message(self, context: ReadContext) -> object:
        """Return the next message or grpc.aio.EOF; RefusedError DEADLINE_EXCEEDED."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._due[task] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_later(self._limit_s, self._cancel_overdue)
        try:
            message: object = await context.read()
        except asyncio.CancelledError:
            if task in self._overdue and task.uncancel() <= 0:
                raise RefusedError(TOO_SLOW) from None
            raise
        finally:
            del self._due[task]
            self._overdue.discard(task)
        return message

    def _cancel_overdue(self) -> None:
        """End the reads that are overdue, and come back when the next one is due."""
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        for task, due in self._due.items():
            if due > now:
                self._timer = loop.call_later(due - now, self._cancel_overdue)
                return
            if task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
