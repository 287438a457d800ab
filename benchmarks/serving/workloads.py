"""What is asked of whom."""

from dataclasses import dataclass

BY_KEY = "by_key"
"""The model whose features are in the store."""
IN_REQUEST = "in_request"
"""The same model, its features sent along."""
ROLLING = "rolling"
"""As by key, with a canary on 10 % of the keys and a shadow on 10 %."""

GATEWAY = "turnout"
HANDWRITTEN = "by hand"
SERVERS = (GATEWAY, HANDWRITTEN)
CANNED = "constant bytes"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of call, and how many are open at once."""

    name: str
    model: str
    rows: int
    connections: int
    streams: int
    """Open on each connection."""
    messages: int = 0
    """PredictStream with so many messages open on each stream; 0: unary."""
    half_rate_of: str = ""
    """Open loop, at half the rate at which the same server answers this workload."""

    @property
    def servers(self) -> tuple[str, ...]:
        """Who can answer it: the server written by hand has neither PredictStream nor canaries."""
        return (GATEWAY,) if self.messages or self.model == ROLLING else SERVERS


KEYED, KEYED_SINGLE_CALLER = "by key, 1 row", "by key, 1 row, alone"
KEYED_WIDE = "by key, 1 row, wide"
SENT, SENT_SINGLE_CALLER = "in the request, 1 row", "in the request, 1 row, alone"
SENT_WIDE, SENT_64 = "in the request, 1 row, wide", "in the request, 64 rows"
KEYED_HALF_RATE, STREAMED = "by key, 1 row, open loop at half", "in the request, streamed"
KEYED_ROLLING = "by key, 1 row, canary and shadow"

WORKLOADS = (
    Workload(KEYED, BY_KEY, 1, 8, 16),
    Workload(KEYED_ROLLING, ROLLING, 1, 8, 16),
    Workload(KEYED_HALF_RATE, BY_KEY, 1, 8, 32, half_rate_of=KEYED),
    Workload(KEYED_WIDE, BY_KEY, 1, 8, 64),
    Workload(KEYED_SINGLE_CALLER, BY_KEY, 1, 1, 1),
    Workload("by key, 64 rows", BY_KEY, 64, 4, 8),
    Workload(SENT, IN_REQUEST, 1, 4, 32),
    Workload(SENT_WIDE, IN_REQUEST, 1, 8, 64),
    Workload(SENT_SINGLE_CALLER, IN_REQUEST, 1, 1, 1),
    Workload(SENT_64, IN_REQUEST, 64, 4, 8),
    Workload(STREAMED, IN_REQUEST, 1, 4, 1, messages=32),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one figure of the gateway, or on its ratio to something else."""

    workload: str
    figure: str
    bound: float
    at_least: bool
    over_handwritten: bool = False
    """To what the server written by hand does of the same."""
    against: str = ""
    """To what the gateway itself does of another workload, just before."""


TARGETS = (
    Target(SENT, "calls_per_s", 120_000, at_least=True),
    Target(SENT_WIDE, "calls_per_s", 120_000, at_least=True),
    Target(SENT, "calls_per_s", 40, at_least=True, over_handwritten=True),
    Target(KEYED, "calls_per_s", 80_000, at_least=True),
    Target(KEYED_WIDE, "calls_per_s", 80_000, at_least=True),
    Target(KEYED, "server_us_per_call", 12, at_least=False),
    Target(KEYED_ROLLING, "calls_per_s", 0.8, at_least=True, against=KEYED),
    Target(SENT_SINGLE_CALLER, "p50_ms", 0.2, at_least=False),
    Target(KEYED_SINGLE_CALLER, "p50_ms", 0.4, at_least=False),
    Target(KEYED_HALF_RATE, "p99_ms", 5, at_least=False),
    Target(SENT_64, "rows_per_s", 600_000, at_least=True),
    Target(STREAMED, "calls_per_s", 100_000, at_least=True),
)
"""What the native door is to reach on one core; the portable one is not held to them."""
