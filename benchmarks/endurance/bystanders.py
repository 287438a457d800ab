"""Customers who call a gateway beside an attack, and the memory of a worker meanwhile."""

import gzip
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.standalone_gateway import PREDICT, tiny_request
from tests.attacks.gzip_bombs import GZIP
from tests.walks.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    WINDOW_UPDATE,
    RawConnection,
    call_header_block,
    grpc_status_and_message,
    raw_frame,
    raw_grpc_message,
)

NEW_CLIENTS = 10
CONNECT_PACE_S = 0.05
GIVE_UP_S = 5.0
OPEN_MAX = 32
"""Calls that a customer has open on one connection: streams_max. Further ones wait in the client.
"""
WINDOW = (1_000).to_bytes(4, "big")
"""Bytes that a customer lets the server send for each call."""


@dataclass(frozen=True)
class Times:
    """How long calls took, in ms."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, took_s: Sequence[float]) -> "Times":
        """Return the quantiles of times in seconds."""
        ms = sorted(1e3 * seconds for seconds in took_s)
        return cls(ms[len(ms) // 2], ms[int(0.99 * len(ms))], ms[-1])

    def __str__(self) -> str:
        """Return them as one cell of the table."""
        return f"{self.p50:.1f} / {self.p99:.1f} / {self.max:.1f}"


class Customer:
    """Makes calls on one connection.

    pace_s      a call is due each so many seconds, and its time counts from then. 0: each call is
                made when the one before is answered.
    compresses  every second call is compressed.
    clock       in seconds; what a call takes is a difference of it.
    """

    def __init__(
        self,
        port: int,
        *,
        pace_s: float,
        compresses: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._pace_s = pace_s
        self._open_max = OPEN_MAX if pace_s else 1
        self._compresses = compresses
        self._wire = RawConnection(port, source="127.0.0.2")
        self._stream = 1

    def calls_while(self, go_on: Callable[[], bool]) -> tuple[list[float], set[int | None]]:
        """Make calls while *go_on*(); return how many seconds each took, and their statuses."""
        took_s: list[float] = []
        statuses: set[int | None] = set()
        began_s: dict[int, float] = {}
        due_s = self._clock()
        while go_on() or began_s:
            # Send what is due, unless that is the end.
            wait_s = due_s - self._clock()
            if wait_s <= 0 and len(began_s) < self._open_max and go_on():
                due_s = due_s if self._pace_s else self._clock()
                began_s[self._send()] = due_s
                due_s += self._pace_s
                continue
            # Read what has come.
            if not self._wire.read(max(wait_s, 0.001)):
                return took_s, {*statuses, None}
            now_s = self._clock()
            for stream in [stream for stream in began_s if stream in self._wire.ended_streams]:
                took_s.append(now_s - began_s.pop(stream))
                headers = self._wire.ended_streams.pop(stream)
                statuses.add(grpc_status_and_message(headers)[0])
            assert all(now_s - at_s < GIVE_UP_S for at_s in began_s.values()), "no answer"
        return took_s, statuses

    def _send(self) -> int:
        """Send a call; return its stream."""
        stream, body = self._stream, tiny_request()
        self._stream += 2
        compressed = int(self._compresses and stream // 2 % 2 == 1)
        block = call_header_block(PREDICT, more=GZIP if compressed else ())
        message = raw_grpc_message(
            gzip.compress(body) if compressed else body, compressed=compressed
        )
        self._wire.send(
            raw_frame(WINDOW_UPDATE, 0, 0, WINDOW)
            + raw_frame(HEADERS, END_HEADERS, stream, block)
            + raw_frame(DATA, END_STREAM, stream, message)
        )
        return stream

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()


class NewCustomers:
    """Customers of several addresses, each call of which opens a connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    def calls_while(self, go_on: Callable[[], bool]) -> tuple[list[float], set[int | None]]:
        """Make calls while *go_on*(); return how many seconds each took, and their statuses."""
        took_s: list[float] = []
        statuses: set[int | None] = set()
        due_s = time.perf_counter()
        while go_on():
            time.sleep(max(0.0, due_s - time.perf_counter()))
            statuses.add(self._call(f"127.0.0.{2 + len(took_s) % NEW_CLIENTS}"))
            took_s.append(time.perf_counter() - due_s)
            due_s += CONNECT_PACE_S
        return took_s, statuses

    def _call(self, source: str) -> int | None:
        """Connect and call once; return the status, or None when the connection was closed."""
        wire = RawConnection(self._port, source=source)
        try:
            wire.call(1, tiny_request())
            while 1 not in wire.ended_streams:
                if not wire.read(GIVE_UP_S):
                    return None
            return grpc_status_and_message(wire.ended_streams[1])[0]
        finally:
            wire.close()

    def close(self) -> None:
        """Do nothing: no connection stays open."""


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
