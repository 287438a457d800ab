"""The Rust generator against real gRPC servers: what it counts is what they did."""

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.load.rust_generator import BINARY, CRATE, build_generator, cargo_works, null_server
from protos.predict_pb2 import PRODUCTION, PredictReply, PredictRequest, StreamReply
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture
from tests.tiny_models import tiny_contract, tiny_files

pytestmark = [
    pytest.mark.walk,
    pytest.mark.skipif(not cargo_works(), reason="cargo is not there"),
]

KEYS = ("--key", "S###:500")


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """Twenty seconds of CPU once; then cargo finds nothing to do."""
    build_generator()


async def load(target: str, *options: str, code: int = 0) -> dict[str, Any]:
    """Run the generator; returns its JSON."""
    program = await asyncio.create_subprocess_exec(
        *(str(BINARY), target, "--json", "--quiet", "--warm", "0", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await asyncio.wait_for(program.communicate(), 30.0)
    assert program.returncode == code, errors.decode()
    told: dict[str, Any] = json.loads(said)
    return told


class CountingPredictor:
    """A grpc.aio server that remembers what it was asked."""

    def __init__(self) -> None:
        self.models: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.rows = 0
        self.teams: set[object] = set()

    async def predict(
        self, request: PredictRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> PredictReply:
        """Answer, refuse or dawdle, as the model's name says."""
        self.models[request.model] += 1
        self.rows += len(request.rows)
        self.keys.update(key for row in request.rows for key in row.keys)
        self.teams.update(value for name, value in context.invocation_metadata() if name == "team")
        if request.model == "bad":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model: größer")
        if request.model == "slow":
            await asyncio.sleep(10)
        return PredictReply(
            version="7", role=PRODUCTION, scores=[0.5] * len(request.rows), outputs=1
        )

    async def stream(
        self, requests: AsyncIterator[PredictRequest], context: object
    ) -> AsyncIterator[StreamReply]:
        """Answer each message, the odd ones with a status."""
        del context
        async for request in requests:
            self.models[request.model] += 1
            reply = StreamReply(request_id=request.request_id)
            if int(request.rows[0].keys[0][1:]) % 2:
                reply.status.code, reply.status.message = 5, "odd"
            else:
                reply.reply.version = "7"
            yield reply

    async def serve(self, address: str) -> tuple[grpc.aio.Server, int]:
        """Listen; returns the server and its port."""
        server = grpc.aio.server()
        handlers = {
            "Predict": grpc.unary_unary_rpc_method_handler(
                self.predict, PredictRequest.FromString, PredictReply.SerializeToString
            ),
            "PredictStream": grpc.stream_stream_rpc_method_handler(
                self.stream, PredictRequest.FromString, StreamReply.SerializeToString
            ),
        }
        service = grpc.method_handlers_generic_handler("turnout.v1.Predictor", handlers)
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port(address)
        await server.start()
        return server, port


def test_grpc_sees_exactly_the_calls_that_are_counted(tmp_path: Path) -> None:
    """Over TCP and a Unix socket: as many, over every key, with their metadata."""

    async def run() -> None:
        seen = CountingPredictor()
        server, port = await seen.serve("127.0.0.1:0")
        server.add_insecure_port(f"unix:{tmp_path}/s")
        options = ("--model", "good", *KEYS, "--calls", "500", "--header", "team: crm")
        told = await load(f"127.0.0.1:{port}", *options)
        assert (told["statuses"], seen.models) == ({"OK": 500}, Counter(good=500))
        assert told["answered_by"] == [{"version": "7", "role": "production", "calls": 500}]
        assert (len(seen.keys), seen.teams) == (500, {"crm"})
        assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["max"]

        path = f"unix:{tmp_path}/t"
        other, _ = await seen.serve(path)
        told = await load(path, *options, "--rows", "1000", "--inputs", "20")
        assert (told["statuses"], seen.rows) == ({"OK": 500}, 500 + 500_000)
        await asyncio.gather(server.stop(0), other.stop(0))

    asyncio.run(run())


def test_failures_are_counted_with_their_status_and_first_words() -> None:
    """NOT_FOUND in the server's words; a call past its deadline; exit code 1 unless allowed."""

    async def run() -> None:
        server, port = await (seen := CountingPredictor()).serve("127.0.0.1:0")
        target = f"127.0.0.1:{port}"
        told = await load(target, "--model", "bad", "--calls", "50", code=1)
        assert told["statuses"] == {"NOT_FOUND": 50}
        assert told["first_words"] == {"NOT_FOUND": "no such model: größer"}
        slow = ("--model", "slow", "--calls", "10", "--timeout-ms", "100")
        told = await load(target, *slow, "--allow", "deadline_exceeded")
        assert told["statuses"] == {"DEADLINE_EXCEEDED": 10}
        assert told["failed"] == 0
        assert seen.models["slow"] == 10
        await server.stop(0)

    asyncio.run(run())


def test_messages_of_streams_are_told_apart() -> None:
    """Half are answered, half end with a status of their own, and no stream ends."""

    async def run() -> None:
        seen = CountingPredictor()
        server, port = await seen.serve("127.0.0.1:0")
        options = ("--model", "m", *KEYS, "--calls", "1000", "--stream", "--streams", "2")
        told = await load(f"127.0.0.1:{port}", *options, "--messages", "8", code=1)
        assert told["statuses"] == {"OK": 500, "NOT_FOUND": 500}
        assert seen.models["m"] == 1_000
        await server.stop(0)

    asyncio.run(run())


def test_an_open_loop_counts_from_when_a_call_was_due() -> None:
    """A server that stops for half a second delays those that were to come, not only the few."""

    async def run() -> None:
        with null_server() as (target, pid):
            options = ("--model", "m", "--rate", "2000", "--seconds", "2", "--timeout-ms", "5000")
            asking = asyncio.create_task(load(target, *options, "--connections", "1"))
            await asyncio.sleep(0.7)  # somewhere in the middle, wherever that is
            stop = await asyncio.create_subprocess_exec("kill", "-STOP", str(pid))
            await stop.wait()
            await asyncio.sleep(0.5)
            go = await asyncio.create_subprocess_exec("kill", "-CONT", str(pid))
            await go.wait()
            told = await asking
        assert 3_500 < told["statuses"]["OK"] < 4_500
        # A quarter of the calls were due while it stood, evenly over .5 s.
        assert told["latency_ms"]["p90"] > 100
        assert told["latency_ms"]["max"] > 450

    asyncio.run(run())


def test_the_real_gateway_answers_it() -> None:
    """Unary and streamed, by its real version and role; streams it allows are kept to."""
    deployment = Deployment(
        model="tiny", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
    )

    async def run() -> None:
        versions = {"1": tiny_files("tiny", contract=tiny_contract(3))}
        async with gateway_fixture(versions, deployment) as gateway:
            target = f"127.0.0.1:{gateway.port}"
            options = ("--model", "tiny", *KEYS, "--inputs", "3", "--calls", "500")
            told = await load(target, *options, "--streams", "100", "--connections", "1")
            assert told["statuses"] == {"OK": 500}
            assert told["answered_by"] == [{"version": "1", "role": "production", "calls": 500}]
            assert told["streams_allowed"] == gateway.settings.streams_max
            told = await load(target, *options, "--stream", "--streams", "1")
            assert told["statuses"] == {"OK": 500}

    asyncio.run(run())


@pytest.mark.nightly  # the crates under it are built anew for it: half a minute
def test_its_own_tests_pass() -> None:
    """Frames, windows, header blocks, keys and clocks, as cargo runs them."""
    done = subprocess.run(
        ["cargo", "test", "--quiet"],
        cwd=CRATE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_who_is_not_there_is_said(tmp_path: Path) -> None:
    """Exit code 3; and 2 for a line that makes no sense."""
    nobody = [str(BINARY), f"unix:{tmp_path}/nobody", "--model", "m"]
    assert subprocess.run(nobody, capture_output=True).returncode == 3
    wrong = subprocess.run([str(BINARY), "--rate", "fast"], capture_output=True, text=True)
    assert (wrong.returncode, "--rate" in wrong.stderr) == (2, True)
