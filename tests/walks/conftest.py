"""One system for all walks that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.walks.whole import Whole, up

MODEL = "tiny"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A running system whose model `tiny` (three request inputs) is in production."""
    folder: Path = tmp_path_factory.mktemp("whole")
    with up(folder / "state") as running:
        label = running.register(MODEL, folder / "files")
        running.approve(MODEL, label, "initial")
        running.ready(MODEL, label)
        yield running
