"""What is promised of a front door is tested on both: each test that opens a house runs twice."""

import pytest

from tests.front_doors import INGRESSES
from tests.gateway import gateway_fixture as houses


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "grpcio: about the inside of grpcio's door alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of modules that open houses get both doors."""
    module = metafunc.module
    opens = getattr(module, "gateway_fixture", None) is houses.gateway_fixture
    walks = any(metafunc.definition.iter_markers("walk"))
    if opens and walks and not any(metafunc.definition.iter_markers("grpcio")):
        metafunc.fixturenames.append("ingress")
        metafunc.parametrize("ingress", INGRESSES, indirect=True)


@pytest.fixture
def ingress(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which door the test's houses have."""
    kind = str(request.param)
    monkeypatch.setattr(houses, "DEFAULT_INGRESS", kind)
    return kind
