"""Which walks begin: those that need a system that takes long to start."""

import pytest

SHARED = ("played", "four", "whole")
"""Session fixtures that take long to build, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let their files begin, so that none of them is left over at the end; order is kept within."""
    ranks: dict[object, int] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        rank = next((n for n, name in enumerate(SHARED) if name in fixtures), len(SHARED))
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])
