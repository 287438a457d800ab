"""The workloads that are timed, and the targets for the native ingress."""

from dataclasses import dataclass

BY_KEY = "by_key"
"""The model whose features are read from the store."""
IN_REQUEST = "in_request"
"""The model whose features are in the request."""
ROLLING = "rolling"
"""The model by key, with a canary on 10 % of the keys and a shadow on 10 % of the copies."""
ON_DEMAND = "on_demand"
"""The model by key, with five features on demand in front of its trees, one of the call's time."""

MANY_EVEN, MANY_SKEWED = "many_even", "many_skewed"
"""MANY_MODELS models by key, copies of one file. Unevenly: the k-th gets 1/k of the calls."""
MANY_MODELS = 30

GATEWAY = "turnout"
HANDWRITTEN = "by hand"
SERVERS = (GATEWAY, HANDWRITTEN)
CANNED = "constant bytes"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of call, and how many calls are open at once."""

    name: str
    model: str
    rows: int
    connections: int
    streams: int
    """Calls open on each connection."""
    messages: int = 0
    """PredictStream with so many messages open on each stream; 0: unary."""
    half_rate_of: str = ""
    """The workload at half of whose calls/s this one sends, in an open loop; empty: closed loop."""

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that can answer it; the handwritten one knows plain models and calls."""
        own = self.messages or self.model in (ROLLING, ON_DEMAND, MANY_EVEN, MANY_SKEWED)
        return (GATEWAY,) if own else SERVERS


KEYED, KEYED_SINGLE_CALLER = "by key, 1 row", "by key, 1 row, alone"
KEYED_WIDE = "by key, 1 row, wide"
SENT, SENT_SINGLE_CALLER = "in the request, 1 row", "in the request, 1 row, alone"
SENT_WIDE, SENT_64 = "in the request, 1 row, wide", "in the request, 64 rows"
KEYED_HALF_RATE, STREAMED = "by key, 1 row, open loop at half", "in the request, streamed"
KEYED_ROLLING = "by key, 1 row, canary and shadow"
KEYED_ON_DEMAND = "by key, 1 row, on demand"
KEYED_MANY_EVEN = "by key, 30 models evenly"
KEYED_MANY_SKEWED = "by key, 30 models unevenly"

WORKLOADS = (
    Workload(KEYED, BY_KEY, 1, 8, 16),
    Workload(KEYED_ROLLING, ROLLING, 1, 8, 16),
    Workload(KEYED_ON_DEMAND, ON_DEMAND, 1, 8, 16),
    Workload(KEYED_MANY_EVEN, MANY_EVEN, 1, 8, 16),
    Workload(KEYED_MANY_SKEWED, MANY_SKEWED, 1, 8, 16),
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
    """A bound on one figure of the gateway, or on that figure's ratio to another."""

    workload: str
    figure: str
    bound: float
    at_least: bool
    over_handwritten: bool = False
    """The bound is on the ratio to the handwritten server's figure."""
    against: str = ""
    """The bound is on the ratio to the gateway's figure of this other workload."""


TARGETS = (
    Target(SENT, "calls_per_s", 120_000, at_least=True),
    Target(SENT_WIDE, "calls_per_s", 120_000, at_least=True),
    Target(SENT, "calls_per_s", 40, at_least=True, over_handwritten=True),
    Target(KEYED, "calls_per_s", 80_000, at_least=True),
    Target(KEYED_WIDE, "calls_per_s", 80_000, at_least=True),
    Target(KEYED, "server_us_per_call", 12, at_least=False),
    Target(KEYED_ROLLING, "calls_per_s", 0.8, at_least=True, against=KEYED),
    Target(KEYED_ON_DEMAND, "calls_per_s", 0.7, at_least=True, against=KEYED),
    Target(KEYED_MANY_EVEN, "calls_per_s", 60_000, at_least=True),
    Target(KEYED_MANY_EVEN, "server_us_per_call", 15, at_least=False),
    Target(KEYED_MANY_EVEN, "p99_ms", 6, at_least=False),
    Target(KEYED_MANY_SKEWED, "calls_per_s", 60_000, at_least=True),
    Target(SENT_SINGLE_CALLER, "p50_ms", 0.2, at_least=False),
    Target(KEYED_SINGLE_CALLER, "p50_ms", 0.4, at_least=False),
    Target(KEYED_HALF_RATE, "p99_ms", 5, at_least=False),
    Target(SENT_64, "rows_per_s", 600_000, at_least=True),
    Target(STREAMED, "calls_per_s", 100_000, at_least=True),
)
"""What the native ingress must reach on one core. They do not bound the grpcio ingress."""
