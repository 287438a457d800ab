"""Gathers the rows of calls that wait, so that one transaction stores the rows of many calls."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from features.push.writer import PushStatus
from features.storage.pushed_log import RowToLog

BATCH_ROWS = 5_000
"""A batch ends with the call that reaches this many rows."""


class RowWriter(Protocol):
    """Writes rows and blocks meanwhile, as EditionWriter does."""

    def write(self, rows: Sequence[RowToLog]) -> list[PushStatus]:
        """Store rows; return what became of each."""
        ...


class RowQueue:
    """The rows that wait for one writer. A batch is written while the next one gathers.

    Touched by the event loop's thread only; the writer runs in another one.
    """

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer
        self._waiting: deque[tuple[Sequence[RowToLog], asyncio.Future[list[PushStatus]]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def write(self, rows: Sequence[RowToLog]) -> list[PushStatus]:
        """Return what became of each row, when the batch in which they are is written.

        Raises what the writer raises for that batch. A caller that is cancelled meanwhile does not
        stop it.
        """
        written: asyncio.Future[list[PushStatus]] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        return await written

    async def drain(self) -> None:
        """Return when all rows are written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_all(self) -> None:
        while self._waiting:
            # Take the calls that came while the last batch was written.
            calls = [self._waiting.popleft()]
            size = len(calls[0][0])
            while self._waiting and size < BATCH_ROWS:
                calls.append(self._waiting.popleft())
                size += len(calls[-1][0])
            batch = [row for rows, _ in calls for row in rows]
            try:
                statuses = await asyncio.to_thread(self._writer.write, batch)
            except Exception as error:  # noqa: BLE001  each call reports it
                for _, written in calls:
                    if not written.done():
                        written.set_exception(error)
                continue
            # Each call gets the part of its rows.
            start = 0
            for rows, written in calls:
                if not written.done():
                    written.set_result(statuses[start : start + len(rows)])
                start += len(rows)
