"""What `make bench` times and what it promises, as data: workloads, targets and what grows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

BY_KEY = "by_key"
"""The model whose features are read from the store."""
IN_REQUEST = "in_request"
"""The model whose features are in the request."""
ROLLING, ROLLING_WIDE = "rolling", "rolling_wide"
"""The model by key with a canary on 10 % of the keys, and one or three shadows on 10 % of the
copies each."""
ON_DEMAND = "on_demand"
"""The model by key, with five features on demand in front of its trees, one of the call's time."""
FEATURES_200, FEATURES_1000 = "features_200", "features_1000"
"""The model by key, over a view of so many features."""
FOREST, LOGISTIC, NETWORK, PIPELINE = "forest", "logistic", "network", "pipeline"
"""Other kinds of models, with their inputs in the request. The pipeline encodes four texts."""
MANY_EVEN, MANY_SKEWED = "many_even", "many_skewed"
TEN_SKEWED, THREE_SKEWED = "ten_skewed", "three_skewed"
"""MANY_MODELS models by key, or ten or three of them, copies of one file. Skewed: the k-th gets 1/k
of the first one's calls."""
MANY_MODELS = 30

GATEWAY = "turnout"
HANDWRITTEN = "by hand"
SERVERS = (GATEWAY, HANDWRITTEN)
CANNED = "constant bytes"
TRITON = "Triton 2.70 (2026, side by side elsewhere)"


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
    """An open loop sends half of the calls/s that this other workload has; empty: no such loop."""
    rate: float = 0.0
    """Calls/s of an open loop; 0: a closed loop."""
    handwritten: bool = False
    """Whether the server by hand takes turns with the gateway."""
    triton: Mapping[str, float] = field(default_factory=dict)
    """Figures of Triton 2.70 with the same model and two instances, on one core of an AMD EPYC
    (2026-11-29, benchmarks/NOTES.md). They are shown, never compared."""

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that are timed."""
        return SERVERS if self.handwritten else (GATEWAY,)


KEYED, KEYED_SINGLE_CALLER = "by key, 1 row", "by key, 1 row, alone"
KEYED_WIDE, KEYED_64 = "by key, 1 row, wide", "by key, 64 rows"
KEYED_1024, KEYED_4096 = "by key, 1,024 rows", "by key, 4,096 rows"
KEYED_HALF_RATE, KEYED_ON_DEMAND = "by key, 1 row, open loop at half", "by key, 1 row, on demand"
KEYED_ROLLING = "by key, 1 row, canary and shadow"
KEYED_ROLLING_WIDE = "by key, 1 row, canary and three shadows"
KEYED_MANY_EVEN, KEYED_MANY_SKEWED = "by key, 30 models evenly", "by key, 30 models unevenly"
KEYED_TEN_SKEWED = "by key, 10 models unevenly"
KEYED_200_FEATURES, KEYED_1000_FEATURES = "by key, 200 features", "by key, 1,000 features"
KEYED_128_CONNECTIONS = "by key, 128 connections"
KEYED_1000_CONNECTIONS = "by key, 1,000 connections"
SENT, SENT_SINGLE_CALLER = "in the request, 1 row", "in the request, 1 row, alone"
SENT_WIDE, SENT_64 = "in the request, 1 row, wide", "in the request, 64 rows"
SENT_1000_S, SENT_5000_S, SENT_10000_S = (
    f"in the request, open loop of {rate:,} calls/s" for rate in (1_000, 5_000, 10_000)
)
STREAMED = "in the request, streamed"

OPEN_STEPS = (2, 4, 8, 15, 16, 24, 31, 32, 48, 64)
"""Calls open on one connection, beside the single caller."""
OPEN_WORKLOADS = {1: KEYED_SINGLE_CALLER} | {
    open_calls: f"by key, {open_calls} open" for open_calls in OPEN_STEPS
}

KIND_NAMES = {
    FOREST: "forest",
    LOGISTIC: "logistic",
    NETWORK: "MLP",
    PIPELINE: "pipeline with dictionaries",
}
KIND_SINGLE = {model: f"{name}, alone" for model, name in KIND_NAMES.items()}
KIND_64 = {model: f"{name}, 64 rows" for model, name in KIND_NAMES.items()}
TRITON_KINDS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    FOREST: {"alone": {"p99_ms": 0.28}, "64": {"rows_per_s": 174_000}},
    LOGISTIC: {"alone": {"p99_ms": 0.25}, "64": {"rows_per_s": 1_433_000}},
    NETWORK: {"alone": {"p99_ms": 0.25}, "64": {"rows_per_s": 1_197_000}},
    PIPELINE: {"alone": {"p99_ms": 0.25}, "64": {}},
}
"""Triton's figures of other kinds. Its forest had three classes, and its pipeline a scaler before
boosted trees and no dictionaries."""
TRITON_SINGLE_CALLS_PER_S = 5_319
"""Triton's calls/s of a single caller with the boosted trees; of other kinds it was not kept."""


def _triton(
    calls_per_s: float, p50_ms: float, p99_ms: float, server_us_per_call: float, rows: int = 1
) -> dict[str, float]:
    return {
        "calls_per_s": calls_per_s,
        "rows_per_s": calls_per_s * rows,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "server_us_per_call": server_us_per_call,
    }


WORKLOADS = (
    # By key: what stands beside what at 128 calls open.
    Workload(KEYED, BY_KEY, 1, 8, 16, handwritten=True),
    Workload(KEYED_ROLLING, ROLLING, 1, 8, 16),
    Workload(KEYED_ROLLING_WIDE, ROLLING_WIDE, 1, 8, 16),
    Workload(KEYED_ON_DEMAND, ON_DEMAND, 1, 8, 16),
    Workload(KEYED_HALF_RATE, BY_KEY, 1, 8, 32, half_rate_of=KEYED, handwritten=True),
    Workload(KEYED_TEN_SKEWED, TEN_SKEWED, 1, 8, 16),
    Workload(KEYED_MANY_EVEN, MANY_EVEN, 1, 8, 16, handwritten=True),
    Workload(KEYED_MANY_SKEWED, MANY_SKEWED, 1, 8, 16, handwritten=True),
    Workload(KEYED_200_FEATURES, FEATURES_200, 1, 8, 16),
    Workload(KEYED_1000_FEATURES, FEATURES_1000, 1, 8, 16),
    Workload(KEYED_128_CONNECTIONS, BY_KEY, 1, 128, 1, handwritten=True),
    Workload(KEYED_1000_CONNECTIONS, BY_KEY, 1, 1_000, 1),
    Workload(KEYED_WIDE, BY_KEY, 1, 8, 64),
    # By key: more rows in a call, and more calls open on one connection.
    Workload(KEYED_64, BY_KEY, 64, 4, 8, handwritten=True),
    Workload(KEYED_1024, BY_KEY, 1_024, 2, 2),
    Workload(KEYED_4096, BY_KEY, 4_096, 1, 1),
    Workload(KEYED_SINGLE_CALLER, BY_KEY, 1, 1, 1, handwritten=True),
    *(Workload(OPEN_WORKLOADS[calls], BY_KEY, 1, 1, calls) for calls in OPEN_STEPS),
    # In the request.
    Workload(SENT, IN_REQUEST, 1, 4, 32, handwritten=True, triton=_triton(27_386, 4.5, 9.7, 36.5)),
    Workload(SENT_WIDE, IN_REQUEST, 1, 8, 64, triton=_triton(20_428, 25.6, 50.0, 49.5)),
    Workload(
        SENT_64, IN_REQUEST, 64, 4, 8, handwritten=True, triton=_triton(4_211, 7.8, 14.7, 238, 64)
    ),
    Workload(STREAMED, IN_REQUEST, 1, 4, 1, messages=32),
    Workload(SENT_1000_S, IN_REQUEST, 1, 8, 32, rate=1_000, handwritten=True),
    Workload(SENT_5000_S, IN_REQUEST, 1, 8, 32, rate=5_000, triton=_triton(5_000, 0.29, 0.81, 140)),
    Workload(
        SENT_10000_S, IN_REQUEST, 1, 8, 32, rate=10_000, triton=_triton(10_000, 0.49, 1.77, 95)
    ),
    Workload(
        SENT_SINGLE_CALLER,
        IN_REQUEST,
        1,
        1,
        1,
        handwritten=True,
        triton=_triton(TRITON_SINGLE_CALLS_PER_S, 0.185, 0.27, 185),
    ),
    # Other kinds of models; the boosted trees are above.
    *(
        Workload(name, model, 1, 1, 1, handwritten=True, triton=TRITON_KINDS[model]["alone"])
        for model, name in KIND_SINGLE.items()
    ),
    *(
        Workload(name, model, 64, 4, 8, handwritten=True, triton=TRITON_KINDS[model]["64"])
        for model, name in KIND_64.items()
    ),
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
    against_best_of: tuple[str, ...] = ()
    """The bound is on the ratio to the gateway's best figure among these other workloads."""


NOISE_SHARE = 0.03
"""Two medians of one server differ by so much between runs on shared cores."""

TARGETS = (
    # One model by key.
    Target(KEYED, "calls_per_s", 80_000, at_least=True),
    Target(KEYED, "server_us_per_call", 12, at_least=False),
    Target(KEYED_WIDE, "calls_per_s", 80_000, at_least=True),
    Target(KEYED_HALF_RATE, "p99_ms", 5, at_least=False),
    Target(KEYED_SINGLE_CALLER, "p50_ms", 0.4, at_least=False),
    # Thirty models.
    Target(KEYED_MANY_EVEN, "calls_per_s", 60_000, at_least=True),
    Target(KEYED_MANY_EVEN, "server_us_per_call", 15, at_least=False),
    Target(KEYED_MANY_EVEN, "p99_ms", 6, at_least=False),
    Target(KEYED_MANY_SKEWED, "calls_per_s", 60_000, at_least=True),
    Target(KEYED_MANY_SKEWED, "server_us_per_call", 15, at_least=False),
    Target(KEYED_MANY_SKEWED, "p99_ms", 6, at_least=False),
    # Candidates, features, connections, rows.
    Target(KEYED_ROLLING, "calls_per_s", 0.8, at_least=True, against=KEYED),
    Target(KEYED_ROLLING_WIDE, "p99_ms", 6, at_least=False),
    Target(KEYED_ON_DEMAND, "calls_per_s", 0.7, at_least=True, against=KEYED),
    Target(KEYED_1000_FEATURES, "p99_ms", 8, at_least=False),
    Target(KEYED_128_CONNECTIONS, "server_us_per_call", 10, at_least=False),
    Target(KEYED_4096, "degraded_share", 0, at_least=False),
    # More calls open never give fewer calls/s.
    *(
        Target(
            OPEN_WORKLOADS[calls],
            "calls_per_s",
            1 - NOISE_SHARE,
            at_least=True,
            against_best_of=tuple(
                OPEN_WORKLOADS[fewer] for fewer in OPEN_WORKLOADS if fewer < calls
            ),
        )
        for calls in OPEN_STEPS
    ),
    # In the request.
    Target(SENT, "calls_per_s", 120_000, at_least=True),
    Target(SENT, "calls_per_s", 40, at_least=True, over_handwritten=True),
    Target(SENT_WIDE, "calls_per_s", 120_000, at_least=True),
    Target(SENT_64, "rows_per_s", 600_000, at_least=True),
    Target(STREAMED, "calls_per_s", 100_000, at_least=True),
    Target(SENT_5000_S, "p99_ms", 0.8, at_least=False),
    Target(SENT_10000_S, "server_us_per_call", 30, at_least=False),
    Target(SENT_SINGLE_CALLER, "p50_ms", 0.15, at_least=False),
    Target(SENT_SINGLE_CALLER, "p99_ms", 0.27, at_least=False),
    # Other kinds: a single caller has 1.1 x Triton's calls/s and its p99; trees twice its rows/s.
    *(
        target
        for model, name in KIND_SINGLE.items()
        for target in (
            Target(name, "calls_per_s", round(1.1 * TRITON_SINGLE_CALLS_PER_S), at_least=True),
            Target(name, "p99_ms", TRITON_KINDS[model]["alone"]["p99_ms"], at_least=False),
        )
    ),
    Target(
        KIND_64[FOREST], "rows_per_s", 2 * TRITON_KINDS[FOREST]["64"]["rows_per_s"], at_least=True
    ),
)
"""What the native ingress must reach on one core. They do not bound the grpcio ingress."""

GROWTH: Mapping[str, Mapping[int, str]] = {
    "models": {1: KEYED, 10: KEYED_TEN_SKEWED, MANY_MODELS: KEYED_MANY_SKEWED},
    "features": {20: KEYED, 200: KEYED_200_FEATURES, 1_000: KEYED_1000_FEATURES},
    "rows a call": {1: KEYED, 64: KEYED_64, 1_024: KEYED_1024, 4_096: KEYED_4096},
    "connections": {
        1: OPEN_WORKLOADS[64],
        8: KEYED,
        128: KEYED_128_CONNECTIONS,
        1_000: KEYED_1000_CONNECTIONS,
    },
    "calls open": OPEN_WORKLOADS,
    "calls/s offered": {1_000: SENT_1000_S, 5_000: SENT_5000_S, 10_000: SENT_10000_S},
}
"""What grows -> its value -> the workload that has it. The table is drawn from their rounds."""


def picked_workloads(only: str) -> list[Workload]:
    """Return the workloads whose name contains *only*, and those that they are compared with."""
    names = {workload.name for workload in WORKLOADS if only in workload.name}
    for target in TARGETS:
        if target.workload in names and target.against:
            names |= {target.against}
    names |= {workload.half_rate_of for workload in WORKLOADS if workload.name in names}
    return [workload for workload in WORKLOADS if workload.name in names]
