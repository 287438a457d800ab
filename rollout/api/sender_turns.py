"""Gives each gateway its share of the controller's time, so that a flood delays its sender alone.

A message counts with the time that parsing, checking and receiving it takes, and with the time that
its bytes take to be judged. A stream whose sender has used up the share waits and reads no further,
so that gRPC's flow control stops the sender.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rollout.errors import SenderRefusedError

TIME_SHARE_PCT = 25
"""The share of the controller's time that the messages of one gateway may take for long."""
BURST_NS = 1_000_000_000
"""What a gateway may use at once: about 30 MB of evidence, for example after an outage."""
JUDGED_NS_PER_BYTE = 30
"""The judge's time for a byte of evidence, by benchmarks.judging.fleet_cost with one gateway and
one model."""
WAITING_BYTES_MAX = 32 * 2**20
"""Messages of one gateway that wait, all its streams together. Beyond it the stream is ended."""


@dataclass(slots=True)
class _Share:
    """One gateway's use of its share."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Its streams take turns."""
    paid_ns: int = 0
    """Until when what it has used is paid for, on the monotonic clock."""
    waiting_bytes: int = 0
    streams: int = 0
    """Messages that wait or are processed."""


class SenderTurns:
    """The shares of all gateways that send now."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}

    @asynccontextmanager
    async def turn(self, gateway: str, size: int) -> AsyncIterator[float]:
        """Run the body in the turn of *gateway*; yield how many seconds a message waited for it.

        size  bytes of the message. The body must not wait, because its time is the message's cost.

        Raises SenderRefusedError when too many bytes of the gateway wait already.
        """
        share = self._shares.setdefault(gateway, _Share())
        if share.waiting_bytes + size > WAITING_BYTES_MAX:
            raise SenderRefusedError(
                f"{share.waiting_bytes} bytes of gateway {gateway!r} wait; {WAITING_BYTES_MAX} may"
            )
        share.waiting_bytes += size
        share.streams += 1
        arrived_ns = time.monotonic_ns()
        try:
            async with share.lock:
                # What was used beyond the burst is waited for.
                burst_ns = BURST_NS * 100 // TIME_SHARE_PCT
                owed_ns = share.paid_ns - burst_ns - time.monotonic_ns()
                if owed_ns > 0:
                    await asyncio.sleep(owed_ns / 1e9)
                began_ns = time.monotonic_ns()
                try:
                    yield (began_ns - arrived_ns) / 1e9
                finally:
                    # A gateway that was silent has no more than the burst.
                    now_ns = time.monotonic_ns()
                    cost_ns = now_ns - began_ns + size * JUDGED_NS_PER_BYTE
                    share.paid_ns = max(share.paid_ns, now_ns) + cost_ns * 100 // TIME_SHARE_PCT
        finally:
            share.waiting_bytes -= size
            share.streams -= 1
            self._forget_idle(gateway, share)

    def _forget_idle(self, gateway: str, share: _Share) -> None:
        if not share.streams and share.paid_ns <= time.monotonic_ns():
            self._shares.pop(gateway, None)
