"""Commands are for callers that the registry knows as operators by their token."""

import asyncio
import hashlib
import json
from pathlib import Path

import grpc
import pytest

from access.peer_tls import make_certificate, open_channel
from protos import rollout_pb2, rollout_pb2_grpc
from registry.api import server as registry_server
from rollout.api.server import serve_rollout
from tests.rollout.live_rollout import wait_until_leading
from tests.rollout.scripted_parts import POLICIES

pytestmark = pytest.mark.walk

ROLES = {"ann": ["author"], "cleo": ["operator"], "rollout": ["controller"]}


def write_identities(path: Path) -> Path:
    """Write an identities file in which the token of each actor is the actor's name."""
    identities = {
        hashlib.sha256(name.encode()).hexdigest(): {"actor": name, "roles": roles}
        for name, roles in ROLES.items()
    }
    path.write_text(json.dumps(identities))
    return path


def test_commands_need_the_token_of_an_operator(tmp_path: Path) -> None:
    """Without a token they are UNAUTHENTICATED, with an author's PERMISSION_DENIED."""

    async def course() -> None:
        # A registry with identities, and a controller with a token of its own.
        own = make_certificate(tmp_path / "registry" / "keys")
        identities = [write_identities(tmp_path / "who.json")]
        registry = await registry_server.serve_registry(
            tmp_path / "registry",
            "127.0.0.1:0",
            identities=identities,
            certificate=own,
        )
        server = await serve_rollout(
            f"127.0.0.1:{registry.port}",
            "127.0.0.1:0",
            token="rollout",
            registry_certificate=own.certificate,
            certificate=own,
            policies=POLICIES,
            identities=identities,
        )
        # Callers prove who they are by their tokens alone.
        try:
            async with (
                asyncio.timeout(20),
                open_channel(f"127.0.0.1:{server.port}", own.certificate) as channel,
            ):
                await wait_until_leading(server)
                stub = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
                command = rollout_pb2.RolloutCommand(model="churn", reason="why")
                start = rollout_pb2.StartRolloutRequest(model="churn", version="2", policy="quick")
                # Each token, whatever name the caller gives.
                for token, code, message in (
                    ("", "UNAUTHENTICATED", "send authorization"),
                    ("stolen", "UNAUTHENTICATED", "not known here"),
                    ("ann", "PERMISSION_DENIED", "Abort needs operator; 'ann' is author"),
                    ("cleo", "NOT_FOUND", "knows no"),
                ):
                    metadata = [("x-turnout-actor", "cleo")]
                    metadata += [("authorization", f"Bearer {token}")] if token else []
                    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
                        await stub.Abort(command, metadata=metadata)
                    assert caught.value.code().name == code
                with pytest.raises(grpc.aio.AioRpcError, match="send authorization"):
                    await stub.Start(start, metadata=[("x-turnout-actor", "cleo")])
        finally:
            await server.stop()
            await registry.stop()

    asyncio.run(course())
