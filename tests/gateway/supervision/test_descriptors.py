"""The limit on file descriptors is raised to what connections_max needs."""

import logging
import resource
from collections.abc import Iterator

import pytest

from gateway.__main__ import DESCRIPTORS_RESERVED, allow_descriptors


@pytest.fixture
def low_soft_limit() -> Iterator[int]:
    """Set the soft limit that most systems start programs with; yield the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_allow_descriptors_raises_the_soft_limit_to_what_connections_need(
    low_soft_limit: int,
) -> None:
    """A limit that is high enough already is not changed."""
    allow_descriptors(2_000)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (
        2_000 + DESCRIPTORS_RESERVED,
        low_soft_limit,
    )
    allow_descriptors(100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2_000 + DESCRIPTORS_RESERVED


def test_allow_descriptors_warns_when_the_hard_limit_is_too_low(
    low_soft_limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has both numbers and both ways out; the soft limit becomes the hard one."""
    with caplog.at_level(logging.WARNING):
        allow_descriptors(low_soft_limit)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low_soft_limit, low_soft_limit)
    assert f"connections_max={low_soft_limit}" in caplog.text
    assert "LimitNOFILE" in caplog.text
