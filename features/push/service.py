"""turnout.v1.Features: takes pushed rows from gRPC, and gives each row its result."""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from access.bounds import ITEMS_MAX_BY_FIELD, BoundError
from access.interceptor import caller_identity
from access.requests import check_fields
from features.errors import ForeignStoreError, OnlineStoreError
from features.push.caller_rates import AboveRateError, CallerRates
from features.push.row_checks import ReceivedRow, encode_rows, find_faults, received_rows
from features.push.row_queue import RowQueue
from features.push.view_editions import UnknownViewError, ViewEditions, ViewsNotReadError
from features.push.writer import PushStatus
from features.views import View
from protos import features_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["Features"].full_name
ROWS_MAX = ITEMS_MAX_BY_FIELD["PushRequest.rows"]
OUTAGE_PUSHBACK_MS = 500
REFUSED_AGAIN = (
    "its event_id was used for a row with other values; an event_id names one row for ever"
)

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC
Handler = Any  # grpc.RpcMethodHandler, likewise

log = logging.getLogger(__name__)


class BadPushError(ValueError):
    """A request is no push, or has too many rows."""


class FeaturesService:
    """The service. `queue_of` returns the queue of an edition.

    It is touched by the event loop's thread only.
    """

    def __init__(
        self,
        editions: ViewEditions,
        rates: CallerRates,
        queue_of: Callable[[View], RowQueue],
    ) -> None:
        self._editions = editions
        self._rates = rates
        self._queue_of = queue_of
        self.counts: Counter[tuple[str, str]] = Counter()
        """(view, status) -> rows, since the counts were logged last."""

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler with which a grpc.aio server serves the RPC."""
        # The request is parsed by the method: a request_deserializer makes bad bytes UNKNOWN.
        push: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self.push, None, pb.PushReply.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Push": push})

    async def push(self, content: bytes, context: Context) -> pb.PushReply:
        """Answer one call, or end it with the status of what is wrong with all of it."""
        status, pushback_ms = grpc.StatusCode.INTERNAL, None
        # Bounds of the caller come first, so that a refused call costs little.
        caller = _caller_of(context)
        try:
            with self._rates.call(caller):
                request = _parse(content)
                self._rates.take(caller, len(request.rows))
                return await self._push(request)
        except asyncio.CancelledError:
            raise
        # What went wrong becomes a status and one sentence, and nothing internal.
        except AboveRateError as error:
            status, pushback_ms = grpc.StatusCode.RESOURCE_EXHAUSTED, error.wait_ms
            text = str(error)
        except BadPushError as error:
            status, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except UnknownViewError as error:
            status, text = grpc.StatusCode.NOT_FOUND, str(error)
        except ViewsNotReadError as error:
            status, pushback_ms = grpc.StatusCode.UNAVAILABLE, OUTAGE_PUSHBACK_MS
            text = str(error)
        except OnlineStoreError as error:
            log.warning("the online store took no rows: %s", error)
            status, pushback_ms = grpc.StatusCode.UNAVAILABLE, OUTAGE_PUSHBACK_MS
            text = (
                "the online store does not answer, so the rows are stored offline only; send the "
                "same rows again with the same event ids"
            )
        except ForeignStoreError as error:
            log.error("FOREIGN STORE: %s", error)  # noqa: TRY400  the cause is the text
            status = grpc.StatusCode.FAILED_PRECONDITION
            text = "the online store belongs to another system, so its operator must act"
        except Exception:
            error_id = secrets.token_hex(6)
            log.exception("Push failed; error id %s", error_id)
            text = f"the rows could not be stored; the server's log has the cause, error {error_id}"
        return await _abort(context, status, text, pushback_ms)

    async def _push(self, request: pb.PushRequest) -> pb.PushReply:
        editions = await self._editions.find(request.view, request.view_hash)
        now_ms = time.time_ns() // 1_000_000
        # Bad rows are refused before anything is written.
        received = received_rows(request.rows)
        faults = find_faults(editions, received, now_ms)
        results = [
            pb.PushResult(status=pb.PushResult.REFUSED, reason=fault) if fault else pb.PushResult()
            for fault in faults
        ]
        good = [index for index, fault in enumerate(faults) if not fault]
        if good:
            rows = [received[index] for index in good]
            for index, status in zip(good, await self._write(editions, rows, now_ms), strict=True):
                results[index].status = getattr(pb.PushResult, status.name)
                if status is PushStatus.REFUSED:
                    results[index].reason = f"row {index + 1}: {REFUSED_AGAIN}"
        # Counts are added once a call.
        for result in results:
            self.counts[request.view, pb.PushResult.Status.Name(result.status).lower()] += 1
        return pb.PushReply(results=results)

    async def _write(
        self, editions: Sequence[View], rows: Sequence[ReceivedRow], now_ms: int
    ) -> list[PushStatus]:
        """Write good rows to every edition; return what became of each row in all of them."""
        statuses: list[list[PushStatus]] = await asyncio.gather(
            *(self._queue_of(view).write(encode_rows(view, rows, now_ms)) for view in editions)
        )
        return [_of_all_editions(some) for some in zip(*statuses, strict=True)]


def _of_all_editions(statuses: Sequence[PushStatus]) -> PushStatus:
    """Return the status of a row that each edition gave one."""
    for status in (PushStatus.REFUSED, PushStatus.WRITTEN, PushStatus.OLDER):
        if status in statuses:
            return status
    return PushStatus.DUPLICATE


def _parse(content: bytes) -> pb.PushRequest:
    """Return the request in *content*. Raises BadPushError."""
    try:
        check_fields(pb.PushRequest, content)
        request = pb.PushRequest.FromString(content)
    except BoundError as error:
        raise BadPushError(f"{error}; send the rows in parts") from error
    except DecodeError as error:
        raise BadPushError(
            f"the request has {len(content)} bytes that are no turnout.v1.PushRequest"
        ) from error
    if len(request.rows) > ROWS_MAX:
        raise BadPushError(
            f"a push has at most {ROWS_MAX:,} rows, and this one has {len(request.rows):,}; send "
            "the rows in parts"
        )
    return request


def _caller_of(context: Context) -> str:
    """Return the name of the caller, if its token proves one; otherwise its address."""
    identity = caller_identity()
    return identity.actor if identity.proven else str(context.peer()).rpartition(":")[0]


async def _abort(
    context: Context, status: grpc.StatusCode, text: str, pushback_ms: int | None
) -> NoReturn:
    trailing = () if pushback_ms is None else (("grpc-retry-pushback-ms", str(pushback_ms)),)
    await context.abort(status, text, trailing)
    raise AssertionError("abort always raises")
