"""gRPC's own interoperability cases pass with each ingress, called from Python and from Go."""

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


class RecordedErrors(InternalErrorLog):
    """Records internal errors instead of logging them."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("quiet"))
        self.texts: list[str] = []

    def log_error(self, text: str, error: BaseException | None = None) -> str:
        """Record the text; the error id is always 0."""
        del error
        self.texts.append(text)
        return "0"


@asynccontextmanager
async def interop_server(ingress: str) -> AsyncIterator[str]:
    """Run an ingress with the test service and yield its address; fail on an internal error."""
    errors = RecordedErrors()
    server = ingress_with_test_service(ingress, errors)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.close(1.0)
    assert errors.texts == []


@pytest.mark.parametrize("ingress", INGRESSES)
@pytest.mark.parametrize("case", CASES)
def test_interop_case_passes_with_the_python_client(case: str, ingress: str) -> None:
    """The case runs as gRPC describes it."""

    async def run() -> None:
        async with (
            interop_server(ingress) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            await asyncio.wait_for(CASES[case](Stub(channel)), TIMEOUT_S)

    asyncio.run(run())


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with grpc-go's own code of the cases, built once."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    out = tmp_path_factory.mktemp("go") / "interop"
    done = subprocess.run(
        ["go", "build", "-o", str(out), "."],
        cwd=GO,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
    )
    if done.returncode and ("requires go" in done.stderr or "dial tcp" in done.stderr):
        pytest.skip(f"the Go client cannot be built here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.nightly  # building grpc-go takes 45 s of CPU the first time, 2 s later
@pytest.mark.parametrize("ingress", INGRESSES)
def test_interop_cases_pass_with_the_go_client(ingress: str, go_client: Path) -> None:
    """The client runs every case by its name. It exits with 1 when a case fails."""

    async def run() -> None:
        async with interop_server(ingress) as address:
            for case in CASES:
                program = await asyncio.create_subprocess_exec(
                    *(str(go_client), address, case),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                output, _ = await asyncio.wait_for(program.communicate(), 3 * TIMEOUT_S)
                assert program.returncode == 0, f"{case}: {output.decode()}"

    asyncio.run(run())
