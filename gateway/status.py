"""The one table from what went wrong to what the caller reads.

Codes are gRPC's numbers, spelled here so that the core needs no grpc import.
"""

from dataclasses import dataclass
from enum import IntEnum


class Code(IntEnum):
    """The gRPC status codes this gateway uses."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Refusal:
    """One status for a caller: nothing of ours but these words leaves.

    pushback_ms  sent as grpc-retry-pushback-ms with UNAVAILABLE; None: not sent.
    """

    code: Code
    message: str
    pushback_ms: int | None = None


def refuse_internal(error_id: str) -> Refusal:
    """Return the fixed words for everything that is our fault; the cause is only in our log."""
    return Refusal(Code.INTERNAL, f"the gateway failed on this call (error {error_id})")


class RefusedError(Exception):
    """A call ends with this refusal; raised between the door and whoever decides, never logged."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
