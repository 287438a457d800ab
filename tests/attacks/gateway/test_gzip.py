"""F5: compressed messages cost nobody but their sender, on a fresh worker of each server.

A customer makes calls beside the attack from an address of its own: plain and compressed in turn to
the native server. The grpcio server takes no compressed calls.
"""

import asyncio
import gzip
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.standalone_gateway import standalone_gateway, tiny_request, write_gateway_folder
from tests.attacks.gzip_bombs import GZIP
from tests.front_doors import INGRESSES
from tests.walks.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREDICT,
    WINDOW_UPDATE,
    RawConnection,
    call_header_block,
    grpc_status_and_message,
    raw_frame,
    raw_grpc_message,
)

pytestmark = pytest.mark.walk

SETTINGS = {"workers": 1, "connection_age_s_max": 600.0}
WINDOW = (1_000).to_bytes(4, "big")
"""Bytes that the customer lets the server send for each call."""
GROWTH_MB = 64.0
P99_S, SHARED_MACHINE_S = 0.02, 0.05
"""What the customer's p99 may be, and what others on the machine of a test may add."""
DESCRIBE = "/turnout.v1.Predictor/DescribeModel"
OUTCOME = "/turnout.v1.Predictor/ReportOutcome"
STREAM = "/turnout.v1.Predictor/PredictStream"


class Customer:
    """Makes one call after another on one connection, and keeps how long each took."""

    def __init__(self, port: int, *, compresses: bool) -> None:
        self._compresses = compresses
        self._wire = RawConnection(port, source="127.0.0.2")
        self._stream = -1
        self.took_s: list[float] = []
        self.statuses: set[int | None] = set()

    def call(self) -> None:
        """Make a call. Every second one is compressed, where the server takes that."""
        self._stream += 2
        stream, body = self._stream, tiny_request()
        compressed = int(self._compresses and stream // 2 % 2 == 1)
        block = call_header_block(PREDICT, more=GZIP if compressed else ())
        message = raw_grpc_message(
            gzip.compress(body) if compressed else body, compressed=compressed
        )
        began = time.perf_counter()
        self._wire.send(
            raw_frame(WINDOW_UPDATE, 0, 0, WINDOW)
            + raw_frame(HEADERS, END_HEADERS, stream, block)
            + raw_frame(DATA, END_STREAM, stream, message)
        )
        while stream not in self._wire.ended_streams:
            assert self._wire.read(5.0), "closed"
            assert time.perf_counter() - began < 5.0, "no answer"
        self.took_s.append(time.perf_counter() - began)
        self.statuses.add(grpc_status_and_message(self._wire.ended_streams.pop(stream))[0])

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    def p99_s(self) -> float:
        """Return the 99 % quantile of the calls since the last time."""
        took_s, self.took_s = sorted(self.took_s), []
        return took_s[int(0.99 * len(took_s))]


@dataclass
class WorkerMemory:
    """The resident memory of one process, in MB."""

    pid: int

    def _status(self, field: str) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(text.partition(f"{field}:")[2].split()[0]) / 1_024

    def resident_mb(self) -> float:
        """Return it as it is, and count its peak from here on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """Return its highest value since `resident_mb`."""
        return self._status("VmHWM")


async def bombs_beside_calls(kind: str, path: str, port: int, customer: Customer) -> Any:  # noqa: ANN401  JSON
    """Return the result of the attack, with the customer calling until it is over."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.gzip_bombs", kind, path, str(port)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    over = asyncio.create_task(program.communicate())
    while not over.done():
        await asyncio.to_thread(customer.call)
    out, err = over.result()
    assert program.returncode == 0, err.decode()
    return json.loads(out)


@pytest.mark.attack("F5")
@pytest.mark.parametrize("ingress", INGRESSES)
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        *(("zeros", path) for path in (OUTCOME, DESCRIBE, PREDICT, STREAM)),
        *(("near ratio", path) for path in (DESCRIBE, PREDICT, STREAM)),
        *(("members", path) for path in (PREDICT, DESCRIBE)),
        *((kind, PREDICT) for kind in ("empty blocks", "many tables")),
    ],
)
def test_compressed_messages_cost_nobody_else(
    kind: str, path: str, ingress: str, tmp_path: Path
) -> None:
    """A stranger sends gzip that unpacks to gigabytes, or that takes long to unpack to nothing."""
    write_gateway_folder(tmp_path)
    with standalone_gateway(tmp_path, SETTINGS | {"ingress": ingress}) as gateway:
        assert gateway.wait_settled(1)
        pids = gateway.serving_pids()
        customer = Customer(gateway.port, compresses=ingress == "native")
        memory = WorkerMemory(pids[0])
        # How the customer fares before.
        for _ in range(300):
            customer.call()
        before_s, before_mb = customer.p99_s(), memory.resident_mb()
        outcome = asyncio.run(bombs_beside_calls(kind, path, gateway.port, customer))
        p99_s, grown_mb = customer.p99_s(), memory.peak_mb() - before_mb
        customer.close()
        print(  # noqa: T201  figures for `pytest -s`
            f"{ingress} {kind} {path}: {outcome}, p99 {before_s:.4f} -> {p99_s:.4f} s, "
            f"{grown_mb:.1f} MB"
        )
        assert outcome["unanswered"] == 0
        # A PredictStream answers each message by itself, and ends well.
        assert path == STREAM or "0" not in outcome["statuses"]
        assert customer.statuses == {0}
        assert p99_s < P99_S + 3 * before_s + SHARED_MACHINE_S
        assert grown_mb < GROWTH_MB
        assert gateway.serving_pids() == pids
