"""system.json: found when its system runs, forgotten when it does not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from host.processes import start_ticks
from tests.turnout.test_context import context_in
from turnout.errors import OperatorError
from turnout.processes.system_file import (
    SYSTEM_FILE,
    SystemAddresses,
    leftover_processes,
    read_system_file,
    remove_system_file,
    write_system_file,
)


def own_addresses() -> SystemAddresses:
    """Return a system that this very process runs."""
    return SystemAddresses(
        pid=os.getpid(),
        pid_started=start_ticks(os.getpid()) or 0,
        store="redis://127.0.0.1:1/0",
        registry="127.0.0.1:2",
        gateway="127.0.0.1:3",
        metrics="http://127.0.0.1:4/metrics",
        children={"store": (11, 5)},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Every command finds the addresses."""
    write_system_file(tmp_path, own_addresses())
    assert read_system_file(tmp_path) == replace(own_addresses(), children={"store": [11, 5]})  # type: ignore[dict-item]
    assert context_in(tmp_path).gateway_address() == "127.0.0.1:3"


def test_a_reused_pid_is_not_mistaken_for_the_system(tmp_path: Path) -> None:
    """The pid lives, but began at another time: nothing runs here, and its parts are named."""
    write_system_file(tmp_path, replace(own_addresses(), pid_started=1))
    assert read_system_file(tmp_path) is None
    assert leftover_processes(tmp_path) == [(11, 5)]


def test_a_demo_is_found_from_the_folder_above(tmp_path: Path) -> None:
    """`turnout predict` needs no --folder while `make run` runs."""
    (tmp_path / "demo").mkdir()
    write_system_file(tmp_path / "demo", own_addresses())
    assert context_in(tmp_path).registry_address() == "127.0.0.1:2"
    assert context_in(tmp_path).running_folder() == tmp_path / "demo"


def test_a_file_that_is_none_of_ours_is_said_to_be(tmp_path: Path) -> None:
    """Not a traceback, and not silence."""
    (tmp_path / SYSTEM_FILE).write_text('{"format": 99}')
    with pytest.raises(OperatorError, match="address file"):
        read_system_file(tmp_path)


def test_forgetting_twice_is_harmless(tmp_path: Path) -> None:
    """Down is down."""
    remove_system_file(tmp_path)
    assert read_system_file(tmp_path) is None


def test_a_process_that_is_gone_has_no_start() -> None:
    """Pid 2**22 + 1 is above Linux's largest."""
    assert start_ticks(2**22 + 1) is None
