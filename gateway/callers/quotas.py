"""Quotas of callers on the grpcio server. Its native twin is ingress/src/calls/callers.rs."""

from dataclasses import dataclass, field

from gateway.caller import Caller
from gateway.status import Code, Refusal, RefusedError
from host.clock import NS_PER_SECOND, Clock

PUSHBACK_MS_MIN, PUSHBACK_MS_MAX = 10, 5_000
STREAM_PUSHBACK_MS = 100


@dataclass(slots=True)
class _Bucket:
    """What was spent and is not paid off yet, at a rate; it may exceed a second's worth once."""

    spent: float = 0.0
    at_ns: int = 0


@dataclass(slots=True)
class _Usage:
    buckets: dict[str, _Bucket] = field(default_factory=dict)
    streams: int = 0
    connections: dict[str, int] = field(default_factory=dict)
    """Peer -> its open calls. grpcio does not tell when a connection closes."""


class CallerQuotas:
    """Token buckets and open calls of each caller. Touched by the event loop's thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._usage: dict[int, _Usage] = {}

    def enter(self, caller: Caller, peer: str) -> None:
        """Begin a call over the connection *peer*; RefusedError above a bound."""
        usage = self._usage.setdefault(caller.number, _Usage())
        new = peer not in usage.connections
        if caller.connections and new and len(usage.connections) >= caller.connections:
            raise _too_many(caller, caller.connections, "connections")
        if caller.streams and usage.streams >= caller.streams:
            raise _too_many(caller, caller.streams, "open calls")
        usage.streams += 1
        usage.connections[peer] = usage.connections.get(peer, 0) + 1

    def leave(self, caller: Caller, peer: str) -> None:
        """End a call that was begun."""
        usage = self._usage[caller.number]
        usage.streams -= 1
        usage.connections[peer] -= 1
        if not usage.connections[peer]:
            del usage.connections[peer]

    def take(self, caller: Caller, what: str, amount: int) -> None:
        """Take *amount* of calls, rows or bytes; RefusedError RESOURCE_EXHAUSTED above the rate."""
        rate: int = getattr(caller, f"{what}_s")
        if not rate:
            return
        usage, now_ns = self._usage.setdefault(caller.number, _Usage()), self._clock.now_ns()
        bucket = usage.buckets.setdefault(what, _Bucket())
        elapsed_s = max(0, now_ns - bucket.at_ns) / NS_PER_SECOND
        bucket.spent = max(0.0, bucket.spent - elapsed_s * rate)
        bucket.at_ns = now_ns
        if bucket.spent >= rate:
            wait_ms = int(1_000 * (bucket.spent - rate) / rate)
            raise RefusedError(
                Refusal(
                    Code.RESOURCE_EXHAUSTED,
                    f"caller '{caller.name}' is above its quota of {rate} {what} a second; wait "
                    "and call again",
                    pushback_ms=min(max(wait_ms, PUSHBACK_MS_MIN), PUSHBACK_MS_MAX),
                )
            )
        bucket.spent += amount


def _too_many(caller: Caller, bound: int, what: str) -> RefusedError:
    return RefusedError(
        Refusal(
            Code.RESOURCE_EXHAUSTED,
            f"caller '{caller.name}' has {bound} {what}, all that it may have; close some",
            pushback_ms=STREAM_PUSHBACK_MS,
        )
    )
