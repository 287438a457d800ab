"""What attacks share: a system with identities, and the table that `make attacks` prints.

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the fault and the first line of each attack's docstring for the table."""
    for item in items:
        mark = item.get_closest_marker("attack")
        if mark is not None and isinstance(item, pytest.Function):
            text = (item.function.__doc__ or "").strip().splitlines()[0]
            item.user_properties.append(("attack", (mark.args[0], text)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of attacks: the finding, what was tried, and whether it was refused."""
    rows = sorted(
        (*value, "refused" if report.passed else "NOT REFUSED", report.duration)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == "attack"
    )
    if rows:
        terminalreporter.section("attacks")
    for fault, text, result, seconds in rows:
        terminalreporter.write_line(f"{fault:<4} {result:<12} {seconds:6.1f} s  {text}")
