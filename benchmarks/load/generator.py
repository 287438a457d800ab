"""Asks a gRPC server as fast as it answers: some connections, each with some calls open.

    python -m benchmarks.load.generator --target 127.0.0.1:8500 --bodies FILE --streams 32

Closed loop: a call that ends is followed by the next at once. Prints one JSON line with what was
answered, how long it took, and what the generator itself cost. *FILE* is what `write_bodies` wrote.
"""

import argparse
import asyncio
import json
import resource
import struct
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

from benchmarks.load.wire import Http2Client, connection_preface, grpc_message

PREDICT = "/turnout.v1.Predictor/Predict"
CONNECT_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """What one round gave. Times in ms."""

    seconds: float
    calls: int
    failed: int
    refused_streams: int
    """Asked again, as any client does: too many were open at once. 0, or the round is odd."""
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    generator_us_per_call: float
    """CPU this process spent a call, user and system."""


def write_bodies(path: Path, bodies: Iterable[bytes]) -> int:
    """Keep requests for a generator; returns how many."""
    count = 0
    with path.open("wb") as stream:
        for body in bodies:
            stream.write(struct.pack("<I", len(body)) + body)
            count += 1
    return count


def read_bodies(path: Path) -> list[bytes]:
    """Return what `write_bodies` kept, each as a gRPC message."""
    content, bodies, start = path.read_bytes(), [], 0
    while start < len(content):
        (length,) = struct.unpack_from("<I", content, start)
        bodies.append(grpc_message(content[start + 4 : start + 4 + length]))
        start += 4 + length
    return bodies


class GeneratorConnection(asyncio.Protocol):
    """One connection that keeps *streams* calls open until it is told to stop."""

    def __init__(self, client: Http2Client, streams: int) -> None:
        self._client = client
        self._streams = streams
        self._sent_ns: dict[int, int] = {}
        self.took_ns = array("q")
        self.failed = 0
        self.refused = 0
        self.running = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet and open the first calls."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(connection_preface())
        self._send_calls(self._streams, b"")

    def data_received(self, data: bytes) -> None:
        """Count what ended and ask as many anew."""
        now_ns = time.perf_counter_ns()
        try:
            done, failed, refused, back = self._client.receive(data)
        except ConnectionError as error:
            self._end(error)
            return
        asked_ns = self._sent_ns
        for stream in done:
            self.took_ns.append(now_ns - asked_ns.pop(stream))
        for stream in failed:
            del asked_ns[stream]
            self.failed += 1
        for stream in refused:
            del asked_ns[stream]
            self.refused += 1
        if self.running:
            self._send_calls(len(done) + len(failed) + len(refused), back)
        elif not asked_ns:
            self._end(None)

    def _send_calls(self, calls: int, back: bytes) -> None:
        sent, streams = self._client.send_calls(calls)
        if sent or back:
            self._transport.write(back + sent)
        now_ns = time.perf_counter_ns()
        for stream in streams:
            self._sent_ns[stream] = now_ns

    def connection_lost(self, exc: Exception | None) -> None:
        """A server that closes before it is asked to has failed the round."""
        self._end(exc or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if not self.ended.done():
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)
        self._transport.close()


async def run_closed_loop(
    target: str,
    bodies: Sequence[bytes],
    *,
    connections: int,
    streams: int,
    seconds: float,
    warm_s: float,
    path: str = PREDICT,
    first: int = 0,
) -> RoundFigures:
    """Ask for *warm_s* uncounted and *seconds* counted; raises OSError when a connection breaks.

    Each connection starts at another place of *bodies*, so that no two ask the same key together.
    """
    host, _, port = target.rpartition(":")
    loop = asyncio.get_running_loop()
    every: list[GeneratorConnection] = []
    step = max(1, len(bodies) // connections)
    for number in range(connections):
        asker = Http2Client(path, target, list(bodies), first_body=first + number * step)
        _, connection = await asyncio.wait_for(
            loop.create_connection(
                lambda a=asker: GeneratorConnection(a, streams), host, int(port)
            ),  # type: ignore[misc]
            CONNECT_S_MAX,
        )
        every.append(connection)
    await _run_for(warm_s, every)
    before = [(len(connection.took_ns), connection.failed) for connection in every]
    cpu_s, began = _cpu_s(), time.perf_counter()
    await _run_for(seconds, every)
    lasted, cpu_s = time.perf_counter() - began, _cpu_s() - cpu_s
    counted = [
        np.frombuffer(connection.took_ns, dtype=np.int64)[first:].copy()
        for connection, (first, _) in zip(every, before, strict=True)
    ]
    failed = sum(
        connection.failed - first for connection, (_, first) in zip(every, before, strict=True)
    )
    for connection in every:
        connection.running = False
    await asyncio.wait_for(asyncio.gather(*(one.ended for one in every)), CONNECT_S_MAX)
    took_ms = np.concatenate(counted) / 1e6
    if not len(took_ms):
        raise ConnectionError(f"{failed} calls failed and none was answered in {seconds:g} s")
    return RoundFigures(
        seconds=round(lasted, 3),
        calls=len(took_ms),
        failed=failed,
        refused_streams=sum(one.refused for one in every),
        calls_per_s=round(len(took_ms) / lasted, 1),
        p50_ms=round(float(np.percentile(took_ms, 50)), 4),
        p99_ms=round(float(np.percentile(took_ms, 99)), 4),
        max_ms=round(float(took_ms.max()), 3),
        generator_us_per_call=round(cpu_s / len(took_ms) * 1e6, 2),
    )


async def _run_for(seconds: float, every: list[GeneratorConnection]) -> None:
    """Let them ask for a while; raises what ended one of them early."""
    ended = [one.ended for one in every]
    done, _ = await asyncio.wait(ended, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for one in done:
        one.result()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read the command line, run one round, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="host:port")
    parser.add_argument("--bodies", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=32, help="calls open on each connection")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warm", type=float, default=1.0, help="seconds not counted")
    parser.add_argument("--first", type=int, default=0, help="begin with this request")
    asked = parser.parse_args()
    measured = uvloop.run(
        run_closed_loop(
            asked.target,
            read_bodies(asked.bodies),
            connections=asked.connections,
            streams=asked.streams,
            seconds=asked.seconds,
            warm_s=asked.warm,
            first=asked.first,
        )
    )
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
