"""Tests of the interceptor: every RPC of every service, by every kind of caller, on a real port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import access.interceptor
from access.identities import ROLES
from access.interceptor import access_interceptor, caller_identity
from access.rules import RULES
from tests.access.identity_files import bearer_metadata, write_identities
from tests.access.rights import CONTROL_SERVICES, FEATURES_SERVICE, all_methods, may_call

WITH_ROLES = (*CONTROL_SERVICES, FEATURES_SERVICE)
UNKNOWN = "/turnout.v1.Registry/DropEverything"
FORGOTTEN = "/turnout.v1.Forgotten/Call"
"""A method that is served and has no rule."""


class EveryMethod(grpc.GenericRpcHandler):
    """Serves every method there is: it reads no request and replies with the caller's name."""

    def service(self, handler_call_details: Any) -> Any:  # noqa: ANN401
        """Return the handler of a method, or None for an unknown one."""
        if handler_call_details.method not in (*all_methods(), FORGOTTEN):
            return None

        async def reply(_requests: object, context: Any) -> None:  # noqa: ANN401
            await context.write(caller_identity().actor.encode())

        return grpc.stream_stream_rpc_method_handler(reply)


@asynccontextmanager
async def serve_every_method(*identities: Path) -> AsyncIterator[grpc.aio.Channel]:
    """Serve every method behind the interceptor; yield a channel to it."""
    server = grpc.aio.server(interceptors=(access_interceptor(identities),))
    server.add_generic_rpc_handlers((EveryMethod(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


async def outcome(
    channel: grpc.aio.Channel, method: str, metadata: list[tuple[str, str | bytes]]
) -> str:
    """Return the reply of a call, or the name of its status and its text."""
    try:
        async for reply in channel.stream_stream(method)(iter(()), metadata=tuple(metadata)):
            return str(bytes(reply).decode())
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {error.details()}"
    return "nothing"


@pytest.mark.walk
def test_interceptor_answers_the_whole_rights_matrix(tmp_path: Path) -> None:
    """Every RPC of the descriptors by: no token, a wrong one, an expired one, each role."""
    file = write_identities(
        tmp_path / "i.json", {"old": "2020-01-01"}, old=sorted(ROLES), **{r: [r] for r in ROLES}
    )

    async def course() -> None:
        async with serve_every_method(file) as channel:
            for method in (*all_methods(), UNKNOWN, FORGOTTEN):
                is_open = method in RULES and RULES[method].open
                # Without a valid token all methods answer alike, also those that do not exist.
                for metadata, words in (
                    ([], "UNAUTHENTICATED send authorization"),
                    (bearer_metadata("eve"), "UNAUTHENTICATED this token is not known"),
                    (bearer_metadata("old"), "UNAUTHENTICATED the token of 'old' expired"),
                ):
                    answer = await outcome(channel, method, metadata)
                    assert answer == "" if is_open else answer.startswith(words), (method, answer)
                for role in sorted(ROLES):
                    answer = await outcome(channel, method, bearer_metadata(role))
                    if method.split("/")[1] in WITH_ROLES and method != UNKNOWN:
                        right = role if may_call(method, role) else "PERMISSION_DENIED"
                    elif method == UNKNOWN:
                        right = "UNIMPLEMENTED"
                    else:
                        right = "" if is_open else "PERMISSION_DENIED"
                    assert answer.startswith(right), (method, role, answer)
                    assert right or answer == "", (method, role, answer)

    asyncio.run(course())


def test_interceptor_ends_the_open_stream_of_a_revoked_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream of another token goes on."""
    monkeypatch.setattr(access.interceptor, "RECHECK_S", 0.05)
    monkeypatch.setattr("access.identities.REREAD_S", 0.0)
    file = write_identities(tmp_path / "i.json", ann=["author"], bob=["approver"])

    # A server with one method, whose streams stay open.
    class Silence(grpc.GenericRpcHandler):
        """Streams one reply, then nothing until the call ends."""

        def service(self, handler_call_details: Any) -> Any:  # noqa: ANN401, ARG002
            """Return the handler."""

            async def reply(_request: object, _context: object) -> AsyncIterator[bytes]:
                yield b"1"
                await asyncio.Event().wait()

            return grpc.unary_stream_rpc_method_handler(reply)

    async def course() -> None:
        server = grpc.aio.server(interceptors=(access_interceptor([file]),))
        server.add_generic_rpc_handlers((Silence(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with asyncio.timeout(20), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            watch = channel.unary_stream("/turnout.v1.Registry/WatchStates")
            calls = {
                name: watch(b"", metadata=tuple(bearer_metadata(name))) for name in ("ann", "bob")
            }
            for call in calls.values():
                assert await call.read() == b"1"
            # Ann's token is revoked.
            write_identities(file, bob=["approver"])
            with pytest.raises(grpc.aio.AioRpcError, match="not known here"):
                await calls["ann"].read()
            assert not calls["bob"].done()
            calls["bob"].cancel()
        await server.stop(0)

    asyncio.run(course())
