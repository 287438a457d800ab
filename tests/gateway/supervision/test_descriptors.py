"""connections_max is a promise that the system's limit on file descriptors must not break."""

import logging
import resource
from collections.abc import Iterator

import pytest

from gateway.__main__ import DESCRIPTORS_RESERVED, allow_descriptors


@pytest.fixture
def low() -> Iterator[int]:
    """The soft limit most systems start programs with; gives the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_is_raised_to_what_connections_need(low: int) -> None:
    """And is left alone where it is enough already."""
    allow_descriptors(2_000)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (2_000 + DESCRIPTORS_RESERVED, low)
    allow_descriptors(100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2_000 + DESCRIPTORS_RESERVED


def test_a_system_that_allows_less_is_named(low: int, caplog: pytest.LogCaptureFixture) -> None:
    """With both numbers and both ways out; what is allowed is taken."""
    with caplog.at_level(logging.WARNING):
        allow_descriptors(low)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low, low)
    assert f"connections_max={low}" in caplog.text
    assert "LimitNOFILE" in caplog.text
