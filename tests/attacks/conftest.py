"""What attacks share: a system with identities.

An attack that uses `attacked_system` leaves it as it found it. An attack that may end the system
starts one of its own with tests.walks.identified_system.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared_systems import share_system
from tests.walks.identified_system import IdentifiedSystem, identified_system

PEOPLE = {
    "alice": ["author"],
    "bob": ["approver"],
    "olga": ["operator"],
    "amy": ["author", "approver"],
    "allie": ["author", "approver", "operator"],
    "ctl": ["controller"],
    "gw2": ["gateway"],
}
"""Name -> roles. `ctl` and `gw2` are a second controller and a second gateway."""


@pytest.fixture(scope="session")
def attacked_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentifiedSystem]:
    """`turnout up --identities` whose model `tiny` has version 1 in production."""
    folder: Path = tmp_path_factory.mktemp("attacked")
    system = identified_system(folder, PEOPLE, author="alice", approver="bob", operator="olga")
    yield from share_system("attacked_system", system)
