"""Who runs beside whom: walks that share a running system stay on one of pytest's processes."""

import pytest

SHARED = ("played", "four", "whole")
"""Session fixtures that take long to build, the longest first."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group by the system used, else by file; the longest begin, so that none is left over."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        group = next((name for name in SHARED if name in fixtures), item.path.name)
        item.add_marker(pytest.mark.xdist_group(group))
        item.stash[RANK] = SHARED.index(group) if group in SHARED else len(SHARED)
    items.sort(key=lambda item: item.stash[RANK])


RANK = pytest.StashKey[int]()
