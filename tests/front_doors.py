"""Both front doors, for tests that hold for either, or for the native one alone."""

import pytest

from gateway.ingress_choice import is_built

BUILT = pytest.mark.skipif(
    not is_built(), reason="turnout_ingress is not built (`make ingress`, where cargo is)"
)
"""Of tests of the native door."""
DOORS = ("grpcio", pytest.param("native", marks=BUILT))
"""Parameters of a test or fixture."""
