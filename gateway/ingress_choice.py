"""Which server implementation the settings choose, and whether it is installed.

Imports neither implementation: the supervisor, which never loads grpc, uses this module.
"""

import importlib.util
from enum import StrEnum

from gateway.errors import SettingsError


class IngressChoice(StrEnum):
    """The values of the setting `ingress`."""

    AUTO = "auto"
    """`native` where it is built, else `grpcio`."""
    NATIVE = "native"
    GRPCIO = "grpcio"


def is_built() -> bool:
    """Whether turnout_ingress is installed for this Python."""
    return importlib.util.find_spec("turnout_ingress") is not None


def check_built(ingress: str, *, available: bool) -> None:
    """Raise SettingsError when *ingress* is native and turnout_ingress is not *available*."""
    if ingress == IngressChoice.NATIVE and not available:
        raise SettingsError(
            "ingress='native' and turnout_ingress is not built for this Python; `make ingress` "
            "builds it where cargo is, and ingress='grpcio' needs no build"
        )
