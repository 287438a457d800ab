"""Which front door is asked for, and whether it is there; without importing either."""

import importlib.util
from enum import StrEnum

from gateway.errors import SettingsError


class IngressChoice(StrEnum):
    """What the setting `ingress` may say."""

    AUTO = "auto"
    """native where it is built, else grpcio."""
    NATIVE = "native"
    GRPCIO = "grpcio"


def is_built() -> bool:
    """Whether turnout_ingress is there for this Python."""
    return importlib.util.find_spec("turnout_ingress") is not None


def check_built(ingress: str, *, available: bool) -> None:
    """Raise SettingsError where *ingress* is native and it is not there."""
    if ingress == IngressChoice.NATIVE and not available:
        raise SettingsError(
            "ingress='native' and turnout_ingress is not built for this Python; `make ingress` "
            "builds it where cargo is, and ingress='grpcio' needs no build"
        )
