"""system.json: it names a system while the system runs."""

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
    """Return the addresses of a system whose main process is this one."""
    return SystemAddresses(
        pid=os.getpid(),
        pid_started=start_ticks(os.getpid()) or 0,
        store="redis://127.0.0.1:1/0",
        registry="127.0.0.1:2",
        gateway="127.0.0.1:3",
        metrics="http://127.0.0.1:4/metrics",
        registry_certificate="control.crt",
        children={"store": (11, 5)},
    )


def test_system_file_is_read_as_written(tmp_path: Path) -> None:
    """Every command finds the addresses in it."""
    write_system_file(tmp_path, own_addresses())
    assert read_system_file(tmp_path) == replace(own_addresses(), children={"store": [11, 5]})  # type: ignore[dict-item]
    assert context_in(tmp_path).gateway_address() == "127.0.0.1:3"


def test_system_file_with_a_reused_pid_names_no_running_system(tmp_path: Path) -> None:
    """The pid is alive but started at another time. The system's leftover processes are named."""
    write_system_file(tmp_path, replace(own_addresses(), pid_started=1))
    assert read_system_file(tmp_path) is None
    assert leftover_processes(tmp_path) == [(11, 5)]


def test_context_finds_a_demo_in_the_state_folder(tmp_path: Path) -> None:
    """`turnout predict` needs no --folder while `make run` runs."""
    (tmp_path / "demo").mkdir()
    write_system_file(tmp_path / "demo", own_addresses())
    assert context_in(tmp_path).registry_address() == "127.0.0.1:2"
    assert context_in(tmp_path).running_folder() == tmp_path / "demo"


def test_system_file_of_another_format_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / SYSTEM_FILE).write_text('{"format": 99}')
    with pytest.raises(OperatorError, match="address file"):
        read_system_file(tmp_path)


def test_system_file_may_be_removed_twice(tmp_path: Path) -> None:
    """Removing a missing file is no error."""
    remove_system_file(tmp_path)
    assert read_system_file(tmp_path) is None


def test_start_ticks_of_a_missing_process_are_none() -> None:
    """2**22 + 1 is larger than any pid of Linux."""
    assert start_ticks(2**22 + 1) is None
