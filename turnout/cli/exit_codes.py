"""The table from an exception to the message an operator reads and the exit code."""

import re
import sys
from dataclasses import dataclass, replace

from features.errors import (
    ContractError,
    EntityIdError,
    ForeignStoreError,
    OnlineStoreError,
    SourceError,
    StoreChangedError,
    ViewError,
)
from features.online.store_url import StoreUrlError
from project.errors import ProjectError
from registry.types import (
    DeploymentError,
    RegistryError,
    RegistryUnavailableError,
    VersionRefusedError,
)
from training.errors import (
    AdoptionError,
    CertifyError,
    ConversionError,
    GateFailedError,
    JoinError,
    LabelsError,
    RecipeError,
)
from turnout.errors import ExitCode, OperatorError
from turnout.library_errors import duckdb_message, redis_message, system_message

START_HINT = "is the system up? Start it with: turnout up"


FIELD = re.compile(r"\b[A-Z]\w*\.(\w+) (?=has \d|has the control|is empty)")
"""A field of a request, as access/bounds.py names it in a refusal."""
OPTION_OF_FIELD = {
    "title": "--title",
    "cause": "--cause",
    "reason": "--reason",
    "why": "--reason",
    "owner": "--owner",
    "purpose": "--purpose",
    "place": "--place",
    "version": "--version",
    "figures_json": "--figures",
    "model": "the model's name",
    "text": "the text",
}
"""A field of a request -> what a person typed for it."""


@dataclass(frozen=True, slots=True)
class ExitMessage:
    """The message for stderr, and the exit code."""

    text: str
    exit_code: ExitCode


def exit_message(error: Exception) -> ExitMessage | None:
    """Return the message and exit code for *error*.

    None for an error that no operator can cause. It is a bug and keeps its traceback.
    """
    message = _message_of(error)
    return None if message is None else replace(message, text=_with_options(message.text))


def _with_options(text: str) -> str:
    """Return a message in which options stand for the fields of requests."""
    return FIELD.sub(lambda found: f"{OPTION_OF_FIELD.get(found[1], found[0].strip())} ", text)


def _message_of(error: Exception) -> ExitMessage | None:
    """Like exit_message, with the names of fields as the registry writes them."""
    match error:
        case OperatorError():
            return ExitMessage(str(error), error.exit)
        case RegistryUnavailableError():
            return ExitMessage(f"{error}; {START_HINT}", ExitCode.NOT_REACHABLE)
        case OnlineStoreError():
            return ExitMessage(f"the online store: {error}", ExitCode.NOT_REACHABLE)
        case RegistryError() | VersionRefusedError() | DeploymentError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case SourceError() | EntityIdError() | StoreUrlError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case ForeignStoreError() | StoreChangedError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case ProjectError() | ViewError() | ContractError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case LabelsError() | RecipeError() | CertifyError() | AdoptionError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case JoinError() | ConversionError() | GateFailedError():
            return ExitMessage(str(error), ExitCode.FAILED)
        case _:
            return _call_error_message(error) or _library_error_message(error)


def _library_error_message(error: Exception) -> ExitMessage | None:
    """Like exit_message, for the errors of redis-py, DuckDB and the operating system."""
    if (store := redis_message(error)) is not None:
        text, unreachable = store
        return ExitMessage(text, ExitCode.NOT_REACHABLE if unreachable else ExitCode.FAILED)
    if (reason := duckdb_message(error) or system_message(error)) is not None:
        return ExitMessage(reason, ExitCode.FAILED)
    return None


def _call_error_message(error: Exception) -> ExitMessage | None:
    """Like exit_message, for the errors of gRPC calls."""
    if "grpc" not in sys.modules:  # no call was made, so its import would be lost time
        return None
    import grpc

    from access.peer_tls import PeerError
    from turnout_client import PredictError, PushError

    unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    match error:
        case PeerError():
            return ExitMessage(str(error), ExitCode.USAGE)
        # Callers know these codes from docs/calling.md.
        case PredictError() | PushError():
            code, message = error.code, f"{error.code.name}: {error.message}"
        # An answer of control or monitoring is a sentence by itself.
        case grpc.aio.AioRpcError():
            code, message = error.code(), error.details() or f"the call failed: {error.code().name}"
        case _:
            return None
    if code in unreachable:
        return ExitMessage(f"{message}; {START_HINT}", ExitCode.NOT_REACHABLE)
    return ExitMessage(message, ExitCode.FAILED)
