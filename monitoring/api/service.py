"""The services turnout.v1.CellSink and turnout.v1.Monitoring.

What blocks, which is the database, runs in one thread, so that the event loop of the control
process is free for rollouts. Lists are read beside that thread, so that readers push meanwhile.
"""

# ruff: noqa: ARG002, N802  the names and parameters are monitoring.proto's

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from access.bounds import BoundError
from access.identities import ForbiddenError
from access.interceptor import caller_identity
from access.requests import parse_request
from host.clock import HOUR_S
from monitoring.api.bins_cache import BinsCache
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.outside_imports import OutsideImports
from monitoring.api.pages import ListPages
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.api.removal import PersonRemoval
from monitoring.cells.segments import SegmentRules
from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import (
    BadCellError,
    BadDecisionsError,
    BadImportError,
    BadPageError,
    MonitoringStoreError,
    SequenceError,
    UnreadableDecisionsError,
)
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from registry.types import RegistryError

log = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC
Result = TypeVar("Result")

STATUS_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    SequenceError: grpc.StatusCode.ABORTED,
    BadCellError: grpc.StatusCode.INVALID_ARGUMENT,
    BadDecisionsError: grpc.StatusCode.INVALID_ARGUMENT,
    BadImportError: grpc.StatusCode.INVALID_ARGUMENT,
    BadPageError: grpc.StatusCode.INVALID_ARGUMENT,
    UnreadableDecisionsError: grpc.StatusCode.FAILED_PRECONDITION,
    BoundError: grpc.StatusCode.INVALID_ARGUMENT,
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
    MonitoringStoreError: grpc.StatusCode.UNAVAILABLE,
    RegistryError: grpc.StatusCode.UNAVAILABLE,
}
DAY_HOURS = 24


class CellSinkService:
    """Takes what readers of journals counted."""

    def __init__(
        self,
        store: MonitoringStore,
        bins: BinsCache,
        policies: ReaderPolicies,
        segments: OutcomeSegments,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._store = store
        self._bins = bins
        self._segments = segments
        self._policies = policies
        self._thread = thread
        self._opened: set[tuple[str, str]] = set()
        """Journals whose readers opened since the start and the last `refuse_read_batches`."""

    def refuse_read_batches(self) -> None:
        """Refuse what readers have read so far and not pushed; they open again and read it anew.

        Journals that were rewritten do not have a removed person's records any more. Batches that
        were accepted before are stored before any later work of the thread.
        """
        self._opened.clear()

    async def OpenReader(self, request: pb.JournalName, context: Context) -> pb.ReaderState:
        """Return from where a reader goes on."""
        caller_identity().check_speaks_for(request.gateway)
        self._opened.add((request.gateway, request.journal))
        if not await self._policies.wait():
            log.warning("the registry's policies are not read; rows are counted without segments")
        opened = await self._run(lambda: self._store.open_reader(request))
        state = self._state(opened.sequence)
        for segment, position in sorted(opened.positions.items()):
            state.positions.add(
                segment=segment,
                offset=position.offset,
                check=position.check,
                complete=position.complete,
            )
        return state

    async def GetVersionBins(
        self, request: pb.VersionBinsRequest, context: Context
    ) -> pb.VersionBins:
        """Return by which bins a version is counted."""
        found = await self._bins.find(request.model, request.version, request.version_digest)
        return found.to_proto()

    async def PushCells(self, request: pb.CellBatch, context: Context) -> pb.ReaderState:
        """Store a batch, and return its sequence number."""
        name = request.journal
        caller_identity().check_speaks_for(name.gateway)
        if (name.gateway, name.journal) not in self._opened:
            raise SequenceError(
                f"the reader of {name.gateway!r} has not opened since monitoring started or a "
                "person was removed; open it again, and count from there"
            )
        return self._state(await self._run(lambda: self._push(request)))

    def _push(self, batch: pb.CellBatch) -> int:
        self._segments.fill(batch, SegmentRules(self._policies.segments))
        return self._store.push(batch)

    def _state(self, sequence: int) -> pb.ReaderState:
        return pb.ReaderState(
            sequence=sequence,
            decisions_of_65536=self._policies.current.sampled_of_65536,
            decisions_by_model=self._policies.current.by_model,
            segments=self._policies.segments,
        )

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class MonitoringService:
    """Says what monitoring has seen, and removes a person from it."""

    def __init__(
        self,
        store: MonitoringStore,
        pages: ListPages,
        decisions: DecisionStore,
        policies: ReaderPolicies,
        removal: PersonRemoval,
        imports: OutsideImports,
        thread: ThreadPoolExecutor,
        decisions_problem: str = "",
    ) -> None:
        self._store = store
        self._pages = pages
        self._decisions = decisions
        self._policies = policies
        self._removal = removal
        self._imports = imports
        self._thread = thread
        self._decisions_problem = decisions_problem

    async def GetStatus(
        self, request: pb.MonitoringStatusRequest, context: Context
    ) -> pb.MonitoringStatus:
        """Return coverage by version, and every reader. Without hours: of the last 24 hours."""
        return await self._run(lambda: self._status(request))

    async def GetFigures(self, request: pb.FiguresRequest, context: Context) -> pb.FiguresPage:
        """Return a page of figures, with those of fairness for auditors only."""
        identity = caller_identity()
        return await asyncio.to_thread(lambda: self._pages.figures(request, identity))

    async def GetAlarms(self, request: pb.AlarmsRequest, context: Context) -> pb.AlarmsPage:
        """Return a page of alarms."""
        identity = caller_identity()
        return await asyncio.to_thread(lambda: self._pages.alarms(request, identity))

    async def GetLooks(self, request: pb.LooksRequest, context: Context) -> pb.LooksPage:
        """Return how far each look is."""
        return await asyncio.to_thread(lambda: self._pages.looks(request))

    async def GetCells(self, request: pb.CellsRequest, context: Context) -> pb.CellsPage:
        """Return a page of the totals of cells."""
        return await asyncio.to_thread(lambda: self._pages.cells(request))

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def ImportScores(self, request: pb.ScoresPart, context: Context) -> pb.ImportReply:
        """Count scores of a model elsewhere."""
        return await self._imports.import_scores(request)

    async def ImportOutcomes(self, request: pb.OutcomesPart, context: Context) -> pb.ImportReply:
        """Count outcomes of a model elsewhere."""
        return await self._imports.import_outcomes(request)

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetReply:
        """Remove a person's decisions and outcomes, or count them."""
        return await self._removal.forget(request)

    def _status(self, request: pb.MonitoringStatusRequest) -> pb.MonitoringStatus:
        # The hours that are asked for.
        until = request.until_hour or int(time.time()) // HOUR_S + 1
        since = request.since_hour or until - DAY_HOURS
        incomplete = self._store.lost_window_batches(since, until) > 0
        # What was counted in them; readers, decisions and backlogs are of this moment.
        return pb.MonitoringStatus(
            versions=[
                pb.VersionCoverage(
                    model=item.model,
                    version=item.version,
                    rows=item.rows,
                    window_rows=item.window_rows,
                    outcomes=item.outcomes,
                    newest_hour=item.newest_hour,
                    windows_incomplete=incomplete,
                )
                for item in self._store.coverage(since, until)
            ],
            readers=self._store.reader_statuses(),
            store=self._store.kind,
            at_unix_ms=time.time_ns() // 1_000_000,
            decision_rows=self._decisions.rows(),
            decisions_problem=self._decisions_problem,
            decision_shares=[
                pb.DecisionShare(
                    model=model, of_65536=share, keys_a_day=self._policies.keys_a_day.get(model, 0)
                )
                for model, share in sorted(self._policies.current.by_model.items())
            ],
            outcome_backlogs=[
                pb.OutcomeBacklog(
                    model=model, number=item.number, oldest_unix_ms=item.oldest_unix_ms
                )
                for model, item in sorted(self._store.outcome_backlogs().items())
            ],
        )


def service_handler(name: str, service: object) -> grpc.GenericRpcHandler:
    """Return the handler with which a grpc.aio server serves every RPC of turnout.v1.*name*."""
    descriptor = pb.DESCRIPTOR.services_by_name[name]
    return grpc.method_handlers_generic_handler(
        descriptor.full_name,
        {method.name: _method_handler(method, service) for method in descriptor.methods},
    )


def _method_handler(method: MethodDescriptor, service: object) -> Any:  # noqa: ANN401  of grpc
    """Wrap an RPC: its request is checked, and every error becomes a status of STATUS_BY_ERROR."""
    request_type: type[Message] = GetMessageClass(method.input_type)
    behaviour: Any = getattr(service, method.name)

    async def reply_once(content: bytes, context: Context) -> Message:
        try:
            reply: Message = await behaviour(parse_request(request_type, content), context)
        except Exception as error:  # noqa: BLE001  the one place that turns errors into statuses
            await _abort(context, error)
        return reply

    # Requests are parsed above: with a request_deserializer grpcio would parse them unchecked.
    return grpc.unary_unary_rpc_method_handler(
        reply_once, response_serializer=lambda reply: reply.SerializeToString()
    )


async def _abort(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code = next((code for kind, code in STATUS_BY_ERROR.items() if isinstance(error, kind)), None)
    if code is None:
        error_id = secrets.token_hex(4)
        log.error("monitoring: error %s", error_id, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"error {error_id}; our log has its cause")
    await context.abort(code, str(error))
    raise AssertionError("abort always raises")
