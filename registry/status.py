"""The table of the registry's errors and their gRPC status codes, in both directions.

The name of the error's class travels in the trailing metadata, so that RegistryClient raises the
same class that the registry raised. Other clients read the status code.
"""

from collections.abc import Sequence

import grpc

from registry.types import (
    BadRequestError,
    DeploymentError,
    FencedError,
    GateError,
    NotAllowedError,
    NotFoundError,
    RegistryFaultError,
    RegistryFullError,
    RegistryUnavailableError,
    RevisionConflictError,
    UnknownActorError,
    VersionRefusedError,
)

ERROR_METADATA_KEY = "x-turnout-error"
"""Key of the trailing metadata with the name of the error's class."""

STATUS: dict[type[Exception], grpc.StatusCode] = {
    BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    DeploymentError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    GateError: grpc.StatusCode.FAILED_PRECONDITION,
    VersionRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    RevisionConflictError: grpc.StatusCode.ABORTED,
    FencedError: grpc.StatusCode.ABORTED,
    UnknownActorError: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
    RegistryFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RegistryUnavailableError: grpc.StatusCode.UNAVAILABLE,
    RegistryFaultError: grpc.StatusCode.INTERNAL,
}

ERROR_BY_NAME = {kind.__name__: kind for kind in STATUS}

# For statuses without a class name, which gRPC itself or another server sends.
ERROR_BY_STATUS: dict[grpc.StatusCode, type[Exception]] = {
    grpc.StatusCode.INVALID_ARGUMENT: BadRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: UnknownActorError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RegistryFullError,
    grpc.StatusCode.UNAVAILABLE: RegistryUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: RegistryUnavailableError,
    grpc.StatusCode.CANCELLED: RegistryUnavailableError,
}


def status_of_error(error: Exception) -> grpc.StatusCode | None:
    """Return the status code of an error, or None for an error that callers must not see."""
    return next((code for kind, code in STATUS.items() if isinstance(error, kind)), None)


def error_from_status(error: grpc.aio.AioRpcError) -> Exception:
    """Return the registry's error for an error that gRPC raised at the client."""
    trailing: Sequence[tuple[str, str | bytes]] = tuple(error.trailing_metadata() or ())
    name = dict(trailing).get(ERROR_METADATA_KEY, "")
    kind = ERROR_BY_NAME.get(str(name)) or ERROR_BY_STATUS.get(error.code(), RegistryFaultError)
    return kind(f"{error.details() or error.code().name}")
