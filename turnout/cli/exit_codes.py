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
from turnout.errors import ExitCode, OperatorError

START_HINT = "is the system up? Start it with: turnout up"


@dataclass(frozen=True, slots=True)
class ExitMessage:
    """What to say on stderr, and the exit code."""

    text: str
    exit_code: ExitCode


def exit_message(error: Exception) -> ExitMessage | None:
    """Return what to tell the operator; None for a mistake of ours, which keeps its traceback."""
    match error:
        case OperatorError():
            return ExitMessage(str(error), error.exit)
        case RegistryUnavailableError():
            return ExitMessage(f"{error}; {START_HINT}", ExitCode.NOT_REACHABLE)
        case OnlineStoreError():
            return ExitMessage(f"the online store: {error}", ExitCode.NOT_REACHABLE)
        case RegistryError() | VersionRefusedError() | DeploymentError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case SourceError() | EntityIdError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case _:
            return _call_error_message(error)


def _call_error_message(error: Exception) -> ExitMessage | None:
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
        return ExitMessage(f"{code.name}: {words}; {START_HINT}", ExitCode.NOT_REACHABLE)
    return ExitMessage(f"{code.name}: {words}", ExitCode.FAILED)
