"""Sends window batches to one sink.

Batches are numbered and kept until the sink acknowledges them. After a lost connection the stream
resumes behind the last batch that the sink has.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import grpc

from access.bounds import MESSAGE_BYTES_MAX
from access.peer_tls import open_channel
from host.retry import Backoff
from protos import window_pb2, window_pb2_grpc

log = logging.getLogger(__name__)

PushCall: TypeAlias = "grpc.aio.StreamStreamCall[window_pb2.WindowBatch, window_pb2.WindowAck]"

RETRY_S_MIN = 0.05
RETRY_S_MAX = 1.0


class WindowStream:
    """The queue and the connection of one sink; no other part waits for them.

    batches_waiting_max  beyond it the oldest batch is dropped.
    on_dropped           called with the number of batches dropped.
    unix_ns              the gateway's clock, with which each message says when it leaves.
    token                the gateway's bearer token; None where the sink has no identities file.
    certificate          file of the certificate that the sink must prove to have; None: plain text.
    """

    def __init__(
        self,
        address: str,
        source: window_pb2.Source,
        batches_waiting_max: int,
        on_dropped: Callable[[int], None],
        unix_ns: Callable[[], int],
        token: str | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._address = address
        self._certificate = certificate
        self._source = source
        self._waiting_max = batches_waiting_max
        self._on_dropped = on_dropped
        self._unix_ns = unix_ns
        self.refusal = ""
        """Why the sink counts no windows of this worker; empty: it counts them."""
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._waiting: deque[window_pb2.WindowBatch] = deque()
        self._sequence = 0
        self._wake = asyncio.Event()
        self._all_acknowledged = asyncio.Event()
        self._all_acknowledged.set()
        self._backoff = Backoff(2 * RETRY_S_MIN, RETRY_S_MAX)
        self._logged_codes: set[grpc.StatusCode] = set()
        """The codes of lost streams in the log, since a sink acknowledged last."""

    def offer(
        self,
        windows: Sequence[window_pb2.Window],
        guards: Sequence[window_pb2.HardGuard],
        unix_ns: int,
    ) -> None:
        """Queue one batch without waiting; when the queue is full, the oldest batch is dropped.

        A batch that is too large for the sink is dropped itself, because it would end every stream.
        """
        self._sequence += 1
        batch = window_pb2.WindowBatch(
            source=self._source,
            sequence=self._sequence,
            windows=windows,
            guards=guards,
            sent_unix_ns=unix_ns,
        )
        if batch.ByteSize() > MESSAGE_BYTES_MAX:
            self._sequence -= 1
            self._on_dropped(1)
            return
        self._waiting.append(batch)
        if len(self._waiting) > self._waiting_max:
            self._waiting.popleft()
            self._on_dropped(1)
        self._all_acknowledged.clear()
        self._wake.set()

    async def wait_acknowledged(self, within_s: float) -> bool:
        """Return True once every batch is acknowledged, False when that takes longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._all_acknowledged.wait()
        return self._all_acknowledged.is_set()

    async def run(self) -> None:
        """Keep a stream open until cancelled. Why one was lost is logged once for each code."""
        # The first pause after a stream that lasted is RETRY_S_MIN; it doubles with each failure.
        while True:
            pause_s = RETRY_S_MIN
            try:
                async with open_channel(self._address, self._certificate) as channel:
                    stub = window_pb2_grpc.WindowSinkStub(channel)  # type: ignore[no-untyped-call]
                    await self._push(stub)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    self._note_refusal(error.details() or "no reason given")
                pause_s = self._backoff.next_s()
                if error.code() not in self._logged_codes:
                    self._logged_codes.add(error.code())
                    log.info(
                        "window_sink_lost address=%s code=%s why=%s",
                        self._address,
                        error.code(),
                        error.details(),
                    )
            await asyncio.sleep(pause_s)

    async def _push(self, stub: window_pb2_grpc.WindowSinkStub) -> None:
        """Push batches from the first that the sink does not have, until the stream ends.

        The sink's first acknowledgement says which batch it has received last.
        """
        first_acknowledged = asyncio.get_running_loop().create_future()
        call = stub.Push(metadata=self._metadata)
        # grpcio leaves a task behind that waits for a request when the call ends. This one is ours.
        writing = asyncio.create_task(self._write_batches(call, first_acknowledged))
        # Without it the call has no use.
        writing.add_done_callback(lambda _: call.cancel())
        try:
            async for ack in call:
                self._note_refusal(ack.refusal)
                while self._waiting and self._waiting[0].sequence <= ack.sequence:
                    self._waiting.popleft()
                if not self._waiting:
                    self._all_acknowledged.set()
                if not first_acknowledged.done():
                    first_acknowledged.set_result(ack.sequence)
                    self._backoff.reset()
                    self._logged_codes.clear()
        except asyncio.CancelledError:
            # A writer that fails ends the call, which looks here as if this task was cancelled.
            if writing.done() and not writing.cancelled() and (error := writing.exception()):
                raise error from None
            raise
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _note_refusal(self, refusal: str) -> None:
        if refusal and not self.refusal:
            log.warning("window_sink_refuses address=%s why=%s", self._address, refusal)
        self.refusal = refusal

    async def _write_batches(self, call: PushCall, acknowledged: "asyncio.Future[int]") -> None:
        """Write batches to *call* until cancelled, or until the call has ended."""
        # The first batch is empty and names this worker.
        await call.write(window_pb2.WindowBatch(source=self._source))
        sent_sequence = await acknowledged
        while True:
            self._wake.clear()
            for batch in [batch for batch in self._waiting if batch.sequence > sent_sequence]:
                sent_sequence = batch.sequence
                batch.clock_unix_ns = self._unix_ns()
                await call.write(batch)
            await self._wake.wait()
