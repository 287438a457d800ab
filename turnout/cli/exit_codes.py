"""The one table from what went wrong to what the operator reads and which code we leave with."""

import sys
from dataclasses import dataclass

from features.errors import EntityIdError, OnlineStoreError, SourceError
from registry.types import (
    DeploymentError,
    RegistryError,
    RegistryUnavailableError,
    VersionRefusedError,
)
from turnout.errors import Exit, OperatorError

IS_IT_UP = "is the system up? Start it with: turnout up"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What to say on stderr, and the exit code."""

    text: str
    exit: Exit


def complaint(error: Exception) -> Complaint | None:
    """Return what to tell the operator; None for a mistake of ours, which keeps its traceback."""
    match error:
        case OperatorError():
            return Complaint(str(error), error.exit)
        case RegistryUnavailableError():
            return Complaint(f"{error}; {IS_IT_UP}", Exit.NOT_REACHABLE)
        case OnlineStoreError():
            return Complaint(f"the online store: {error}", Exit.NOT_REACHABLE)
        case RegistryError() | VersionRefusedError() | DeploymentError():
            return Complaint(str(error), Exit.NO)
        case SourceError() | EntityIdError():
            return Complaint(str(error), Exit.NO)
        case _:
            return _of_a_call(error)


def _of_a_call(error: Exception) -> Complaint | None:
    """Judge what a gRPC call raised; gRPC is loaded if one did."""
    if "grpc" not in sys.modules:
        return None
    import grpc

    from turnout_client import PredictError

    unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    match error:
        case PredictError():
            code, words = error.code, error.message
        case grpc.aio.AioRpcError():
            code, words = error.code(), error.details() or ""
        case _:
            return None
    if code in unreachable:
        return Complaint(f"{code.name}: {words}; {IS_IT_UP}", Exit.NOT_REACHABLE)
    return Complaint(f"{code.name}: {words}", Exit.NO)
