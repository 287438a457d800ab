"""What is asked of whom."""

from dataclasses import dataclass

BY_KEY = "by_key"
"""The model whose features are in the store."""
IN_REQUEST = "in_request"
"""The same model, its features sent along."""

GATEWAY = "turnout"
PLAIN = "by hand"
SIDES = (GATEWAY, PLAIN)
CANNED = "constant bytes"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of call, and how many are open at once."""

    name: str
    model: str
    rows: int
    connections: int
    streams: int
    """Open on each connection: well below Settings.streams_max, which a server counts until it has
    forgotten a stream."""


WORKLOADS = (
    Workload("by key, 1 row", BY_KEY, 1, 8, 16),
    Workload("by key, 1 row, alone", BY_KEY, 1, 1, 1),
    Workload("by key, 64 rows", BY_KEY, 64, 4, 8),
    Workload("in the request, 1 row", IN_REQUEST, 1, 8, 16),
    Workload("in the request, 1 row, alone", IN_REQUEST, 1, 1, 1),
    Workload("in the request, 64 rows", IN_REQUEST, 64, 4, 8),
)
