"""Authorises each call of a grpc.aio server before its request is read.

A refused call costs its headers: no byte of its body is parsed, and none waits in memory. The
identity of a call that is let in is what `caller_identity` returns while the call runs.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import grpc

from access.identities import ForbiddenError, IdentitiesFiles, Identity, UnidentifiedError
from access.rules import RULES, Access

RECHECK_S = 2.0
"""How often the identity of an open stream is checked again. It may have expired or been revoked.
"""

_IDENTITY: ContextVar[Identity] = ContextVar("identity")

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC
Handler = Any  # grpc.RpcMethodHandler, whose attributes grpc does not type


def caller_identity() -> Identity:
    """Return the identity of the caller whose call runs now."""
    return _IDENTITY.get()


async def abort_refused(context: Context, error: UnidentifiedError | ForbiddenError) -> NoReturn:
    """End the call as UNAUTHENTICATED or PERMISSION_DENIED, with the text of *error*."""
    forbidden = isinstance(error, ForbiddenError)
    code = grpc.StatusCode.PERMISSION_DENIED if forbidden else grpc.StatusCode.UNAUTHENTICATED
    await context.abort(code, str(error))
    raise AssertionError("abort always raises")


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Checks the rule of every call (access/rules.py).

    Without a valid token all methods are answered alike, whether or not they exist. An open stream
    whose identity is revoked or expires ends within RECHECK_S and the time between two looks at
    the identities file.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: Any,  # noqa: ANN401  grpc leaves its fields untyped
    ) -> Handler:
        """Return the handler of the call, or one that refuses the call without reading it."""
        method = handler_call_details.method
        metadata = tuple(handler_call_details.invocation_metadata or ())
        handler = await continuation(handler_call_details)
        try:
            # Who may call something at all learns that there is no such method.
            if handler is None and method not in RULES:
                self._access.identify(metadata)
                return None
            _IDENTITY.set(self._access.authorise(method, metadata))
        except (UnidentifiedError, ForbiddenError) as error:
            return _refusing_handler(error)
        if handler is None or not (handler.request_streaming or handler.response_streaming):
            return handler
        return _rechecked_handler(handler, lambda: self._access.authorise(method, metadata))


def access_interceptor(identities: Sequence[Path]) -> AccessInterceptor:
    """Return the interceptor for a server of this host.

    identities  files of tokens. Without one every name is believed.

    Raises IdentitiesFileError.
    """
    return AccessInterceptor(Access(IdentitiesFiles(identities) if identities else None))


def _refusing_handler(error: UnidentifiedError | ForbiddenError) -> Handler:
    # Only a handler of a stream is called before its request is read.
    async def refuse(_requests: object, context: Context) -> None:
        await abort_refused(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)


def _rechecked_handler(handler: Handler, authorise: Callable[[], Identity]) -> Handler:
    """Return *handler*, whose call ends when *authorise* no longer lets it in."""
    behaviour = handler.stream_unary or handler.unary_stream or handler.stream_stream

    async def rechecked(request: object, context: Context) -> Any:  # noqa: ANN401
        # The method runs in the task that grpc made for it, because only there an abort is safe.
        task = asyncio.current_task()
        assert task is not None
        refusals: list[UnidentifiedError | ForbiddenError] = []
        rechecking = asyncio.ensure_future(_cancel_when_refused(task, authorise, refusals))
        try:
            return await _run(behaviour, request, context)
        except (UnidentifiedError, ForbiddenError) as error:
            await abort_refused(context, error)
        except asyncio.CancelledError:
            if not refusals:
                raise
            task.uncancel()
            await abort_refused(context, refusals[0])
        finally:
            rechecking.cancel()

    make_handler = {
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make_handler(rechecked, handler.request_deserializer, handler.response_serializer)


async def _cancel_when_refused(
    task: "asyncio.Task[Any]",
    authorise: Callable[[], Identity],
    refusals: list[UnidentifiedError | ForbiddenError],
) -> None:
    """Cancel *task* once *authorise* no longer lets its call in, and note why in *refusals*."""
    while True:
        await asyncio.sleep(RECHECK_S)
        try:
            authorise()
        except (UnidentifiedError, ForbiddenError) as error:
            refusals.append(error)
            task.cancel()
            return


async def _run(behaviour: Handler, request: object, context: Context) -> Any:  # noqa: ANN401
    """Run a method that returns its reply, writes its replies, or yields them."""
    if not inspect.isasyncgenfunction(behaviour):
        return await behaviour(request, context)
    async with aclosing(behaviour(request, context)) as replies:
        async for reply in replies:
            await context.write(reply)
    return None
