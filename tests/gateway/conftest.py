"""Each walk that uses gateway_fixture runs once with each server, grpcio and native."""

import pytest

from tests.front_doors import INGRESSES
from tests.gateway import gateway_fixture as fixture_module


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests that run with the grpcio server only."""
    config.addinivalue_line("markers", "grpcio: the test runs with the grpcio server only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with both servers if it is a walk of a module that imports gateway_fixture."""
    module = metafunc.module
    imports_fixture = getattr(module, "gateway_fixture", None) is fixture_module.gateway_fixture
    is_walk = any(metafunc.definition.iter_markers("walk"))
    if imports_fixture and is_walk and not any(metafunc.definition.iter_markers("grpcio")):
        metafunc.parametrize("ingress", INGRESSES, indirect=True)


@pytest.fixture(autouse=True)
def ingress(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the server that gateway_fixture starts, and return its name.

    Every test has it, because pytest sets up no fixture that is added while tests are collected.
    """
    name = str(getattr(request, "param", fixture_module.DEFAULT_INGRESS))
    monkeypatch.setattr(fixture_module, "DEFAULT_INGRESS", name)
    return name
