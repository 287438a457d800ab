"""Both front doors, for tests that hold for either, or for the native one alone."""

import pytest

from gateway.ingress_choice import is_built

NEEDS_NATIVE_INGRESS = pytest.mark.skipif(
    not is_built(), reason="turnout_ingress is not built (`make ingress`, where cargo is)"
)
"""Of tests of the native door."""
INGRESSES = ("grpcio", pytest.param("native", marks=NEEDS_NATIVE_INGRESS))
"""Parameters of a test or fixture."""
