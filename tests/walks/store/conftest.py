"""Walks of the store run with the native server, whose I/O thread reads by itself.

While it does not, calls are read on the event loop, as those of the grpcio server always are.
"""

import pytest

from gateway.ingress_choice import is_built
from tests.gateway import gateway_fixture as fixture_module


@pytest.fixture(autouse=True)
def ingress(monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the server that gateway_fixture starts, and return its name."""
    name = "native" if is_built() else "grpcio"
    monkeypatch.setattr(fixture_module, "DEFAULT_INGRESS", name)
    return name
