"""The two servers, for tests that run with each of them or with the native one only."""

import pytest

from gateway.ingress_choice import is_built

NEEDS_NATIVE_INGRESS = pytest.mark.skipif(
    not is_built(), reason="turnout_ingress is not built (`make ingress`, where cargo is)"
)
"""Mark of a test that needs the native server."""
INGRESSES = ("grpcio", pytest.param("native", marks=NEEDS_NATIVE_INGRESS))
"""Parameters of a test or fixture that runs with each server."""
