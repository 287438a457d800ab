"""What the clients raise."""

from __future__ import annotations

import grpc


class PredictError(Exception):
    """A call ended with a gRPC status other than OK.

    code     grpc.StatusCode. What each code means:
             INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION: the request is wrong. The same
             request fails again.
             RESOURCE_EXHAUSTED: the call has too many rows or bytes. Send it in parts.
             UNAVAILABLE: the gateway is full or restarting, and retries did not help.
             DEADLINE_EXCEEDED: the gateway did not answer within `timeout_s`.
             INTERNAL: the gateway failed. The message holds an id to look up in its log.
    message  str. What the gateway said: what it saw, and what it expected.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class PushError(Exception):
    """A push ended with a gRPC status other than OK. Send the same rows again: none is lost.

    code     grpc.StatusCode. What each code means:
             NOT_FOUND, INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED: the call is wrong, or
             the caller may not push. The same call fails again.
             RESOURCE_EXHAUSTED: the caller is above its rate, and retries did not help. Push less.
             UNAVAILABLE, DEADLINE_EXCEEDED: the server or the online store does not answer. Rows
             may be stored already; they are duplicates then, and no harm.
             INTERNAL: the server failed. The message holds an id to look up in its log.
    message  str. What the server said.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
