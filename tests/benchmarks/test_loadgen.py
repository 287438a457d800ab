"""The load generator in Rust against real gRPC servers: it must count what the servers did."""

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
def _load_generator() -> None:
    """Build the load generator. The first build takes 15 s of CPU."""
    build_generator()


async def load(target: str, *options: str, code: int = 0) -> dict[str, Any]:
    """Run the load generator, and return the JSON that it prints."""
    program = await asyncio.create_subprocess_exec(
        *(str(BINARY), target, "--json", "--warm", "0", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(program.communicate(), 30.0)
    assert program.returncode == code, errors.decode()
    report: dict[str, Any] = json.loads(output)
    return report


class RecordingServicer:
    """A grpc.aio servicer that records the requests it receives."""

    def __init__(self) -> None:
        self.models: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.rows = 0
        self.teams: set[object] = set()

    async def predict(
        self, request: PredictRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> PredictReply:
        """Answer, fail or wait, as the model's name says."""
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
        """Answer each message. A message with an odd key gets a status instead of a reply."""
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
        """Start a server with this servicer. Returns the server and its port."""
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


def test_loadgen_counts_exactly_the_calls_that_the_server_receives(tmp_path: Path) -> None:
    """Over TCP and a Unix socket, the server receives every key and the metadata."""

    async def run() -> None:
        servicer = RecordingServicer()
        server, port = await servicer.serve("127.0.0.1:0")
        server.add_insecure_port(f"unix:{tmp_path}/s")
        options = ("--model", "good", *KEYS, "--calls", "500", "--header", "team: crm")
        report = await load(f"127.0.0.1:{port}", *options)
        assert (report["statuses"], servicer.models) == ({"OK": 500}, Counter(good=500))
        assert report["answered_by"] == [{"version": "7", "role": "production", "calls": 500}]
        assert (len(servicer.keys), servicer.teams) == (500, {"crm"})
        assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["max"]

        path = f"unix:{tmp_path}/t"
        other, _ = await servicer.serve(path)
        # Half a million rows take a busy machine longer than a call may take by default.
        large = ("--rows", "1000", "--inputs", "20", "--timeout-ms", "20000")
        report = await load(path, *options, *large)
        assert (report["statuses"], servicer.rows) == ({"OK": 500}, 500 + 500_000)
        await asyncio.gather(server.stop(0), other.stop(0))

    asyncio.run(run())


def test_loadgen_reports_failures_with_status_and_first_message() -> None:
    """The exit code is 1 for NOT_FOUND, and 0 for DEADLINE_EXCEEDED if it is allowed."""

    async def run() -> None:
        server, port = await (servicer := RecordingServicer()).serve("127.0.0.1:0")
        target = f"127.0.0.1:{port}"
        report = await load(target, "--model", "bad", "--calls", "50", code=1)
        assert report["statuses"] == {"NOT_FOUND": 50}
        assert report["first_messages"] == {"NOT_FOUND": "no such model: größer"}
        slow = ("--model", "slow", "--calls", "10", "--timeout-ms", "100")
        report = await load(target, *slow, "--allow", "deadline_exceeded")
        assert report["statuses"] == {"DEADLINE_EXCEEDED": 10}
        assert report["failed"] == 0
        assert servicer.models["slow"] == 10
        await server.stop(0)

    asyncio.run(run())


def test_loadgen_counts_each_message_of_a_stream_by_its_own_status() -> None:
    """Half of the messages get a reply, half a status, and no stream ends."""

    async def run() -> None:
        servicer = RecordingServicer()
        server, port = await servicer.serve("127.0.0.1:0")
        options = ("--model", "m", *KEYS, "--calls", "1000", "--stream", "--streams", "2")
        report = await load(f"127.0.0.1:{port}", *options, "--messages", "8", code=1)
        assert report["statuses"] == {"OK": 500, "NOT_FOUND": 500}
        assert servicer.models["m"] == 1_000
        await server.stop(0)

    asyncio.run(run())


def test_open_loop_latency_counts_from_when_a_call_was_due() -> None:
    """A server that stops for .5 s delays all calls that were due in that time."""

    async def run() -> None:
        with null_server() as (target, pid):
            options = ("--model", "m", "--rate", "2000", "--seconds", "2", "--timeout-ms", "5000")
            asking = asyncio.create_task(load(target, *options, "--connections", "1"))
            await asyncio.sleep(0.7)  # in the middle of the run
            stop = await asyncio.create_subprocess_exec("kill", "-STOP", str(pid))
            await stop.wait()
            await asyncio.sleep(0.5)
            go = await asyncio.create_subprocess_exec("kill", "-CONT", str(pid))
            await go.wait()
            report = await asking
        assert 3_500 < report["statuses"]["OK"] < 4_500
        # A quarter of the calls were due while the server stood still for .5 s.
        assert report["latency_ms"]["p90"] > 100
        assert report["latency_ms"]["max"] > 450

    asyncio.run(run())


def test_loadgen_keeps_to_the_streams_that_the_gateway_allows() -> None:
    """The gateway answers unary calls and messages, with its real version and role."""
    deployment = Deployment(
        model="tiny", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
    )

    async def run() -> None:
        versions = {"1": tiny_files("tiny", contract=tiny_contract(3))}
        async with gateway_fixture(versions, deployment) as gateway:
            target = f"127.0.0.1:{gateway.port}"
            options = ("--model", "tiny", *KEYS, "--inputs", "3", "--calls", "500")
            report = await load(target, *options, "--streams", "100", "--connections", "1")
            assert report["statuses"] == {"OK": 500}
            assert report["answered_by"] == [{"version": "1", "role": "production", "calls": 500}]
            assert report["streams_allowed"] == gateway.settings.streams_max
            report = await load(target, *options, "--stream", "--streams", "1")
            assert report["statuses"] == {"OK": 500}

    asyncio.run(run())


@pytest.mark.nightly  # builds all crates without optimisation first: half a minute
def test_loadgen_crate_passes_its_own_tests() -> None:
    """Run `cargo test` on frames, windows, header blocks, keys and schedules."""
    done = subprocess.run(
        ["cargo", "test", "--quiet"],
        cwd=CRATE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_loadgen_exit_code_tells_a_missing_server_from_a_wrong_option(tmp_path: Path) -> None:
    """The exit code is 3 without a server, and 2 for an option that makes no sense."""
    no_server = [str(BINARY), f"unix:{tmp_path}/missing", "--model", "m"]
    assert subprocess.run(no_server, capture_output=True).returncode == 3
    wrong = subprocess.run([str(BINARY), "--rate", "fast"], capture_output=True, text=True)
    assert (wrong.returncode, "--rate" in wrong.stderr) == (2, True)
