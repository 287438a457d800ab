"""Pushes batches to monitoring, and waits as long as it takes.

A gateway does not notice: the journal keeps what was not pushed, and the reader goes on when
monitoring is back.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from access.bounds import MESSAGE_BYTES_MAX
from access.peer_tls import open_channel
from host.retry import Backoff
from journal.progress import note_progress
from monitoring.cells.version_bins import VersionBins
from monitoring.fold.id_fields import IdFields
from monitoring.fold.journal_fold import BatchContent, JournalFold, VersionKey
from protos import monitoring_pb2 as pb
from protos.monitoring_pb2_grpc import CellSinkStub
from registry.client import call_metadata

log = logging.getLogger(__name__)

CALL_S = 60.0
IDLE_S = 1.0
"""Time between two looks at a journal in which nothing is new."""
PAUSE_S = 3.0
"""Time after a batch that had all there was: a row is counted about this long after its call."""
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
)


class CellSinkClient:
    """A connection to monitoring for the reader of one journal. Use `close` at the end.

    address      host:port of monitoring.
    name         of the journal; its gateway's name is the actor.
    token        of the gateway; None: monitoring has no identities.
    certificate  file of monitoring's certificate; None: plain text.

    Raises access.peer_tls.PeerError for a token without a certificate.
    """

    def __init__(
        self, address: str, name: pb.JournalName, token: str | None, certificate: Path | None
    ) -> None:
        self.name = name
        self._metadata = call_metadata(name.gateway, token)
        self._channel = open_channel(address, certificate, token, OPTIONS)
        self._stub: Any = CellSinkStub(self._channel)  # type: ignore[no-untyped-call]

    async def open_reader(self) -> pb.ReaderState:
        """Return from where the reader goes on. Raises grpc.aio.AioRpcError."""
        state: pb.ReaderState = await self._stub.OpenReader(
            self.name, metadata=self._metadata, timeout=CALL_S
        )
        return state

    async def push(self, batch: pb.CellBatch) -> pb.ReaderState:
        """Store a batch. Raises grpc.aio.AioRpcError: ABORTED when it does not follow."""
        state: pb.ReaderState = await self._stub.PushCells(
            batch, metadata=self._metadata, timeout=CALL_S
        )
        return state

    async def version_bins(self, version: VersionKey) -> VersionBins:
        """Return by which bins a version is counted. Raises grpc.aio.AioRpcError."""
        model, label, digest8 = version
        request = pb.VersionBinsRequest(model=model, version=label, version_digest=digest8)
        return VersionBins.from_proto(
            await self._stub.GetVersionBins(request, metadata=self._metadata, timeout=CALL_S)
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


PROGRESS_NAME = "monitoring"
"""Under this name the reader says in the journal's folder how far it is."""


class JournalReaderLoop:
    """Reads a journal for ever and pushes what is new."""

    def __init__(self, folder: Path, client: CellSinkClient, id_fields: IdFields) -> None:
        self._folder = folder
        self._client = client
        self._id_fields = id_fields
        self._bins: dict[VersionKey, VersionBins] = {}
        self._backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        self._failing = False

    async def run(self, stop: asyncio.Event, *, once: bool = False) -> None:
        """Push until *stop* is set; with *once* until nothing is new."""
        while not stop.is_set():
            try:
                fold = await self._open()
                if await self._push_from(fold, stop, once=once):
                    return
            except grpc.aio.AioRpcError as error:
                await self._wait_after(error, stop)

    async def _open(self) -> JournalFold:
        state = await self._client.open_reader()
        return JournalFold(self._folder, self._client.name, state, self._id_fields)

    async def _push_from(self, fold: JournalFold, stop: asyncio.Event, *, once: bool) -> bool:
        """Push batch after batch. Returns True at the end.

        Raises AioRpcError when a batch was refused or no answer came: then the fold is of no use,
        because the store may have the batch or not.
        """
        while not stop.is_set():
            content = fold.read()
            if content:
                fold.note_stored(await self._client.push(await self._count(fold, content)))
                self._note_success()
                # Retention keeps what this reader has not read.
                with suppress(OSError):
                    note_progress(self._folder, PROGRESS_NAME, fold.read_offsets)
            elif once:
                return True
            # Few large batches cost less than many small ones. What is behind goes on at once.
            if not once and not content.backlog_bytes:
                await _sleep(PAUSE_S if content else IDLE_S, stop)
        return True

    async def _count(self, fold: JournalFold, content: BatchContent) -> pb.CellBatch:
        """Return the counts of *content*. Bins that had a problem are asked for again."""
        bins = {}
        for version in content.versions:
            known = self._bins.get(version)
            if known is None or known.problem:
                known = self._bins[version] = await self._client.version_bins(version)
                if known.problem:
                    log.warning("%s version %s has no bins: %s", *version[:2], known.problem)
            bins[version] = known
        return fold.batch_of(content, bins)

    def _note_success(self) -> None:
        if self._failing:
            log.info("monitoring takes batches again")
        self._failing = False
        self._backoff.reset()

    async def _wait_after(self, error: grpc.aio.AioRpcError, stop: asyncio.Event) -> None:
        if not self._failing:
            log.warning("monitoring did not take a batch: %s %s", error.code(), error.details())
        self._failing = True
        await _sleep(self._backoff.next_s(), stop)


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    """Return after *seconds*, or when *stop* is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
