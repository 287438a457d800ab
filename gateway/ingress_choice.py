"""Which server implementation the settings choose, and whether it is installed.

Imports neither implementation: the supervisor, which never loads grpc, uses this module.
"""

import importlib.util
from enum import StrEnum

from gateway.errors import SettingsError
from host.processes import platform_refusal

LOG_VARIABLES = {"GRPC_VERBOSITY": "INFO", "GRPC_TRACE": "handshaker"}
"""What gRPC needs in its environment to log handshakes, and nothing for a call."""


class IngressChoice(StrEnum):
    """The values of the setting `ingress`."""

    AUTO = "auto"
    """`native` where it is built, else `grpcio`."""
    NATIVE = "native"
    GRPCIO = "grpcio"


def is_built() -> bool:
    """Whether turnout_ingress is installed for this Python."""
    return importlib.util.find_spec("turnout_ingress") is not None


def reads_log_of_grpc(ingress: str, tls_certificate: str) -> bool:
    """Whether a worker learns of refused TLS handshakes from gRPC's log.

    gRPC then needs the variables of `LOG_VARIABLES` before it is imported.
    """
    grpcio = ingress == IngressChoice.GRPCIO or (ingress == IngressChoice.AUTO and not is_built())
    return grpcio and bool(tls_certificate)


def check_gateway_runs_here(ingress: str, *, available: bool) -> None:
    """Raise SettingsError if no gateway runs on this system, or as `check_built`."""
    if refusal := platform_refusal():
        raise SettingsError(refusal)
    check_built(ingress, available=available)


def check_built(ingress: str, *, available: bool) -> None:
    """Raise SettingsError when *ingress* is native and turnout_ingress is not *available*."""
    if ingress == IngressChoice.NATIVE and not available:
        raise SettingsError(
            "ingress='native' and turnout_ingress is not built for this Python; `make ingress` "
            "builds it where cargo is, and ingress='grpcio' needs no build"
        )
