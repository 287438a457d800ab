"""gRPC's own interoperability cases pass behind either door, asked from Python and from Go."""

import asyncio
import logging
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from gateway.internal_error_log import InternalErrorLog
from tests.front_doors import INGRESSES
from tests.interop.cases import CASES, TIMEOUT_S, Stub
from tests.interop.service import ingress_with_test_service

pytestmark = pytest.mark.walk

GO = Path(__file__).parents[2] / "interop" / "go"


class NotedFaults(InternalErrorLog):
    """Remembers what went wrong inside."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("quiet"))
        self.texts: list[str] = []

    def log_error(self, text: str, error: BaseException | None = None) -> str:
        """Keep it."""
        del error
        self.texts.append(text)
        return "0"


@asynccontextmanager
async def interop_server(ingress: str) -> AsyncIterator[str]:
    """A door with the test service behind it; its address. Nothing may go wrong inside."""
    faults = NotedFaults()
    door = ingress_with_test_service(ingress, faults)
    port = await door.listen("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await door.close(1.0)
    assert faults.texts == []


@pytest.mark.parametrize("ingress", INGRESSES)
@pytest.mark.parametrize("case", CASES)
def test_pythons_client(case: str, ingress: str) -> None:
    """The case as gRPC describes it."""

    async def run() -> None:
        async with (
            interop_server(ingress) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            await asyncio.wait_for(CASES[case](Stub(channel)), TIMEOUT_S)

    asyncio.run(run())


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """grpc-go's own code for the cases, built once."""
    if shutil.which("go") is None:
        pytest.skip("go is not there")
    out = tmp_path_factory.mktemp("go") / "interop"
    done = subprocess.run(
        ["go", "build", "-o", str(out), "."],
        cwd=GO,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
    )
    if done.returncode and ("requires go" in done.stderr or "dial tcp" in done.stderr):
        pytest.skip(f"no client can be built here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.nightly  # building grpc-go takes 45 s of CPU the first time, 2 s later
@pytest.mark.parametrize("ingress", INGRESSES)
def test_gos_client(ingress: str, go_client: Path) -> None:
    """Every case by name; who fails says so and leaves with 1."""

    async def run() -> None:
        async with interop_server(ingress) as address:
            for case in CASES:
                program = await asyncio.create_subprocess_exec(
                    *(str(go_client), address, case),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                said, _ = await asyncio.wait_for(program.communicate(), 3 * TIMEOUT_S)
                assert program.returncode == 0, f"{case}: {said.decode()}"

    asyncio.run(run())
