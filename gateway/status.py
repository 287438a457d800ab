"""Statuses that a call can end with, by gRPC's numbers; no module imports grpc for them."""

from dataclasses import dataclass
from enum import IntEnum


class Code(IntEnum):
    """The gRPC status codes that this gateway uses."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
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
    """The status that a call ends with. The caller sees nothing else of the cause.

    pushback_ms  sent as grpc-retry-pushback-ms with UNAVAILABLE; None: it is not sent.
    """

    code: Code
    message: str
    pushback_ms: int | None = None


def refuse_internal(error_id: str) -> Refusal:
    """Return the fixed INTERNAL status of a gateway error; the log has the cause by *error_id*."""
    return Refusal(Code.INTERNAL, f"the gateway failed on this call (error {error_id})")


class RefusedError(Exception):
    """Ends a call with a refusal. The server sends its status to the caller; it is never logged."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
