"""Who may steer: whom the registry knows as an operator, and nobody by his word alone."""

import asyncio
import hashlib
import json
from pathlib import Path

import grpc
import pytest

from protos import rollout_pb2, rollout_pb2_grpc
from registry.api import server as registry_server
from rollout.api.server import serve_rollout
from tests.rollout.live_rollout import wait_until_leading
from tests.rollout.scripted_parts import POLICIES

pytestmark = pytest.mark.walk

ROLES = {"ann": ["author"], "cleo": ["operator"], "rollout": ["controller"]}


def write_identities(path: Path) -> Path:
    """Write an identities file in which the token of each actor is the actor's name."""
    told = {
        hashlib.sha256(name.encode()).hexdigest(): {"actor": name, "roles": roles}
        for name, roles in ROLES.items()
    }
    path.write_text(json.dumps(told))
    return path


def test_commands_need_the_token_of_an_operator(tmp_path: Path) -> None:
    """Without a token they are UNAUTHENTICATED, with an author's PERMISSION_DENIED."""

    async def course() -> None:
        registry = await registry_server.serve_registry(
            tmp_path / "registry", "127.0.0.1:0", identities=write_identities(tmp_path / "who.json")
        )
        address = f"127.0.0.1:{registry.port}"
        server = await serve_rollout(address, "127.0.0.1:0", token="rollout", policies=POLICIES)
        try:
            async with (
                asyncio.timeout(20),
                grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
            ):
                await wait_until_leading(server)
                stub = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
                verb = rollout_pb2.RolloutCommand(model="churn", reason="why")
                start = rollout_pb2.StartRolloutRequest(model="churn", version="2", policy="quick")
                for token, code, words in (
                    ("", "UNAUTHENTICATED", "send authorization"),
                    ("stolen", "UNAUTHENTICATED", "send authorization"),
                    ("ann", "PERMISSION_DENIED", "needs operator; 'ann' is author"),
                    ("cleo", "NOT_FOUND", "knows no"),
                ):
                    said = [("x-turnout-actor", "cleo")]
                    said += [("authorization", f"Bearer {token}")] if token else []
                    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
                        await stub.Abort(verb, metadata=said)
                    assert caught.value.code().name == code
                with pytest.raises(grpc.aio.AioRpcError, match="send authorization"):
                    await stub.Start(start, metadata=[("x-turnout-actor", "cleo")])
        finally:
            await server.stop()
            await registry.stop()

    asyncio.run(course())
