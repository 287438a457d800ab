"""What the example programs in Java, Go and Node call: a gateway with TLS, tokens and two models.

Also a server that refuses the first calls, and the load that shows how connections come of age.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from features.contract import ModelContract, RequestInput
from features.online.reader import OnlineReader
from gateway.settings import Settings
from protos.predict_pb2 import PredictReply, PredictRequest
from tests.gateway import gateway_fixture as fixture_module
from tests.gateway.callers.test_callers import caller_table
from tests.gateway.gateway_fixture import GatewayFixture, gateway_fixture
from tests.gateway.transport.test_tls import Certificate, write_files
from tests.servers import redis_server
from tests.tiny_models import tiny_files
from tests.walks.clients.page_snippets import snippets
from tests.walks.gateway_with_store import (
    customer_model_files,
    production_only,
    write_customer_rows,
)

CLIENTS = Path(__file__).parents[3] / "clients"
PAGE = CLIENTS.parent / "docs" / "calling.md"
PROGRAM_S_MAX = 240.0
Record = Callable[[str, object], None]
"""The type of the fixture `record_property`."""
TOKEN = "crm"
"""caller_table makes a caller whose token is its name."""

OFFERS = ModelContract(
    entities=("subscriber", "offer"),
    inputs=(
        RequestInput(name="price", default=0.0),
        RequestInput(name="channel", dictionary=("app", "shop"), default=0.0),
    ),
    outputs=("accepted",),
)
OFFER_WEIGHTS = np.array([[0.01], [0.5]], dtype=np.float32)
"""An offer of price 30 in the channel "shop", whose code is 1, scores 0.8."""

EXAMPLE_OUTPUT = """\
health: SERVING
churn: 21.00 by version 1, PRODUCTION
offer: O002, 0.80
outcome: duplicate false
outcome: duplicate true
refused: NOT_FOUND
"""
"""What each example program prints. Customer S000042 has the score 21."""


@dataclass(frozen=True)
class ExampleGateway:
    """A gateway that serves, and the files by which a caller reaches it."""

    fixture: GatewayFixture
    address: str
    authority_file: Path | None
    token_file: Path | None

    @property
    def arguments(self) -> list[str]:
        """The arguments of an example program."""
        files = [str(path) for path in (self.authority_file, self.token_file) if path]
        return [self.address, *files]


@asynccontextmanager
async def example_gateway(
    ingress: str, folder: Path | None = None, connection_age_s_max: float = 30.0
) -> AsyncIterator[ExampleGateway]:
    """Serve `churn` by key and `nba` with two request inputs.

    folder  for certificate, callers file and token. None: no TLS, and everybody may call.
    """
    # Certificate, callers file and token.
    chosen, authority_file, token_file = Settings(), None, None
    if folder is not None:
        authority = Certificate("authority")
        chosen = write_files(folder, Certificate("localhost", authority), None)
        authority_file, token_file = folder / "ca.pem", folder / "token.txt"
        authority_file.write_bytes(authority.pem)
        token_file.write_text(f"{TOKEN}\n")
        (folder / "callers.toml").write_text(caller_table(TOKEN))
        chosen = replace(chosen, callers_file=str(folder / "callers.toml"))
    chosen = replace(chosen, connection_age_s_max=connection_age_s_max)
    # Two models: one reads the store, and one takes request inputs.
    offers = tiny_files("nba", contract=OFFERS, weights=OFFER_WEIGHTS)
    before, fixture_module.DEFAULT_INGRESS = fixture_module.DEFAULT_INGRESS, ingress
    with redis_server() as store:
        write_customer_rows(store.url)
        reader = OnlineReader(store.url)
        await reader.start()
        try:
            async with gateway_fixture(
                {"1": customer_model_files()},
                production_only(),
                settings=chosen,
                store=reader,
                others=[({"1": offers}, replace(production_only(), model="nba"))],
            ) as fixture:
                address = f"localhost:{fixture.port}"
                yield ExampleGateway(fixture, address, authority_file, token_file)
        finally:
            fixture_module.DEFAULT_INGRESS = before
            await reader.close()


class ProgramFailedError(Exception):
    """A program did not exit with 0. The message has all that it printed."""


async def run_program(line: Sequence[str], cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed.

    Raises ProgramFailedError.

    The variables name a proxy that is not there, which no example may use.
    """
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9")
    program = await asyncio.create_subprocess_exec(
        *line,
        cwd=cwd,
        env={**os.environ, **proxies},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(program.communicate(), PROGRAM_S_MAX)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    if program.returncode:
        raise ProgramFailedError(f"{line}: {output.decode()}{errors.decode()}")
    return output.decode()


def check_example(
    ingress: str, folder: Path, line: Sequence[str], not_found: str = "NOT_FOUND"
) -> None:
    """The example program prints EXAMPLE_OUTPUT, with TLS and a token, and without both.

    not_found  the name that the program's language has for the status NOT_FOUND.
    """
    expected = EXAMPLE_OUTPUT.replace("NOT_FOUND", not_found)

    async def run() -> None:
        for files in (folder, None):
            async with example_gateway(ingress, files) as gateway:
                assert await run_program([*line, *gateway.arguments]) == expected
                # Both reports reached the journal as one.
                assert (len(gateway.fixture.outcomes.records), gateway.fixture.faults) == (1, [])

    asyncio.run(run())


def check_first_call(
    ingress: str, program: Path, kind: str, line_for: Callable[[str], Sequence[str]]
) -> None:
    """The program of the first call prints the score of the customer, 21.

    The page for callers shows it in its fragment of *kind*, without imports and the like.
    line_for  returns the command that runs the program, whose address and customer are replaced.
    """
    (block,) = snippets(PAGE, kind)
    code = program.read_text(encoding="utf-8")
    assert " ".join(block.body.split()) in " ".join(code.split())

    async def run() -> None:
        async with example_gateway(ingress) as gateway:
            changed = code.replace("localhost:8500", gateway.address)
            changed = changed.replace("S0000042", "S000042")
            # A cold JVM on a busy machine.
            changed = changed.replace("ofSeconds(5)", "ofSeconds(30)")
            assert "21" in await run_program(line_for(changed))

    asyncio.run(run())


def check_wrong_token(ingress: str, folder: Path, line: Sequence[str]) -> None:
    """Health needs no token. The first prediction is refused, and the program says so."""

    async def run() -> None:
        async with example_gateway(ingress, folder) as gateway:
            assert gateway.token_file is not None
            gateway.token_file.write_text("of somebody else")
            with pytest.raises(ProgramFailedError) as failed:
                await run_program([*line, *gateway.arguments])
            assert "health: SERVING" in str(failed.value)
            assert "UNAUTHENTICATED" in str(failed.value).upper()

    asyncio.run(run())


@dataclass
class RefusingServer:
    """Refuses the first calls of Predict, and says when to call again.

    calls     so many calls are refused, each *refusals* times.
    """

    calls: int
    refusals: int
    pushback_ms: int
    arrivals_s: list[float] = field(default_factory=list)
    """When each try of a call came (monotonic clock)."""
    _begun: int = 0

    async def predict(
        self,
        request: PredictRequest,
        context: grpc.aio.ServicerContext[PredictRequest, PredictReply],
    ) -> PredictReply:
        """Refuse, or answer with one score."""
        self.arrivals_s.append(time.monotonic())
        metadata = dict(context.invocation_metadata() or ())
        tries = int(metadata.get("grpc-previous-rpc-attempts", 0))
        self._begun += tries == 0
        if (tries or self._begun <= self.calls) and tries < self.refusals:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", str(self.pushback_ms)),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "full")
        return PredictReply(model=request.model, scores=[0.5], outputs=1)

    def counts(self, line: Sequence[str], calls_open: int, connections: int) -> dict[str, int]:
        """Run a load program for a second; return how its calls ended, as it prints it."""

        async def run() -> dict[str, int]:
            server = grpc.aio.server()
            handler = grpc.unary_unary_rpc_method_handler(
                self.predict, PredictRequest.FromString, PredictReply.SerializeToString
            )
            handlers = {"Predict": handler}
            service = grpc.method_handlers_generic_handler("turnout.v1.Predictor", handlers)
            server.add_generic_rpc_handlers((service,))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            try:
                numbers = ("1", str(calls_open), str(connections))
                printed = await run_program([*line, f"127.0.0.1:{port}", *numbers])
            finally:
                await server.stop(None)
            counts: dict[str, int] = json.loads(printed)
            return counts

        return asyncio.run(run())


def check_pushback(line: Sequence[str]) -> None:
    """Two refusals are repeated, and not before the server said: 200 ms, far above the backoff.

    line  of the load program. It makes one call at a time.
    """
    refusing = RefusingServer(calls=1, refusals=2, pushback_ms=200)
    assert set(refusing.counts(line, calls_open=1, connections=1)) == {"OK"}
    # The caller sees answers only, and the first three tries came 200 ms apart.
    first, second, third = refusing.arrivals_s[:3]
    assert min(second - first, third - second) >= 0.2


def check_refused_pool(line: Sequence[str]) -> None:
    """200 calls that are refused twice at once are repeated, and are no reason for throttling.

    On a busy host connections of one age end together, with all calls that are on their way.
    """
    refusing = RefusingServer(calls=200, refusals=2, pushback_ms=10)
    assert set(refusing.counts(line, calls_open=200, connections=8)) == {"OK"}
    assert len(refusing.arrivals_s) >= 600


def calls_while_connections_age(
    ingress: str, line: Sequence[str], calls_open: int, connections: int
) -> dict[str, int]:
    """Keep calls open for 10 s while each connection is replaced each second.

    line  of the load program. Returns status with gRPC's words -> calls that ended so.
    """

    async def run() -> dict[str, int]:
        async with example_gateway(ingress, connection_age_s_max=1.0) as gateway:
            counts: dict[str, int] = json.loads(
                await run_program([*line, gateway.address, "10", str(calls_open), str(connections)])
            )
            assert gateway.fixture.faults == []
            return counts

    return asyncio.run(run())
