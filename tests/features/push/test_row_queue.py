"""Tests of the queue that gathers the rows of calls."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from features.push.row_queue import BATCH_ROWS, RowQueue
from features.push.writer import PushStatus
from features.storage.pushed_log import RowToLog


class GatedWriter:
    """Notes its batches. Each waits until the test opens the gate."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.began = threading.Event()

    def write(self, rows: Sequence[RowToLog]) -> list[PushStatus]:
        """Refuse rows called "bad", fail on a row called "fault"."""
        self.began.set()
        assert self.gate.wait(10)
        self.batches.append([row.event_id for row in rows])
        if any(row.event_id == "fault" for row in rows):
            raise OSError("no space left on device")
        return [PushStatus.REFUSED if row.event_id == "bad" else PushStatus.WRITTEN for row in rows]


def rows(*names: str) -> list[RowToLog]:
    """Rows with these event ids."""
    return [RowToLog(name, b"S1", 5, b"") for name in names]


def test_calls_that_wait_are_written_together_and_get_their_own_results() -> None:
    """The first call is under way, so the next three share a batch. A full batch ends."""

    async def run() -> None:
        writer = GatedWriter()
        queue = RowQueue(writer)
        calls = [asyncio.create_task(queue.write(rows("a")))]
        await asyncio.to_thread(writer.began.wait, 10)
        calls += [asyncio.create_task(queue.write(rows(*names))) for names in ("bc", "d", "e")]
        calls += [
            asyncio.create_task(queue.write(rows(*["x"] * BATCH_ROWS))),
            asyncio.create_task(queue.write(rows("bad"))),
        ]
        await asyncio.sleep(0)
        writer.gate.set()
        results = await asyncio.gather(*calls)
        assert writer.batches[0] == ["a"]
        assert writer.batches[1][:5] == ["b", "c", "d", "e", "x"]
        assert writer.batches[2] == ["bad"]
        assert [len(result) for result in results] == [1, 2, 1, 1, BATCH_ROWS, 1]
        assert results[-1] == [PushStatus.REFUSED]

    asyncio.run(run())


def test_batch_that_fails_costs_its_own_calls_only() -> None:
    """Each of its calls gets the error, and the next batch is written."""

    async def run() -> None:
        writer = GatedWriter()
        queue = RowQueue(writer)
        failing = asyncio.create_task(queue.write(rows("fault")))
        await asyncio.to_thread(writer.began.wait, 10)
        good = asyncio.create_task(queue.write(rows("good")))
        writer.gate.set()
        with pytest.raises(OSError, match="no space"):
            await failing
        assert await good == [PushStatus.WRITTEN]
        await queue.drain()

    asyncio.run(run())


def test_caller_that_gives_up_stops_no_other() -> None:
    """Its rows are written all the same."""

    async def run() -> None:
        writer = GatedWriter()
        queue = RowQueue(writer)
        gone = asyncio.create_task(queue.write(rows("gone")))
        await asyncio.to_thread(writer.began.wait, 10)
        stays = asyncio.create_task(queue.write(rows("stays")))
        gone.cancel()
        await asyncio.sleep(0)
        writer.gate.set()
        assert await stays == [PushStatus.WRITTEN]
        assert writer.batches == [["gone"], ["stays"]]

    asyncio.run(run())
