"""Who may import whom: one way, through the doors, as DESIGN section 2 draws it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.sources import (
    CLIENT_FOLDER,
    FOLDERS,
    MAY_IMPORT,
    REPOSITORY,
    ROOMS,
    fail_on_breaches,
    imports,
    location,
    sources,
)

REGISTRY_DOORS = ("registry.client", "registry.bundle", "registry.types")
TURNOUT_DOORS = (*REGISTRY_DOORS, "registry.api.server")
"""turnout starts the control process, so it may also import what serves, but never the storage."""


def test_a_room_imports_only_the_rooms_below_it() -> None:
    """Rooms side by side meet in the registry and in protos, and nowhere else."""
    fail_on_breaches(
        [
            f"{location(path, line)}: {room} may not import {name}"
            for room, folder in FOLDERS.items()
            for _, path in sources(folder)
            for line, name in imports(path)
            if (other := name.split(".")[0]) in {*MAY_IMPORT, "benchmarks", "tests"}
            and other not in MAY_IMPORT[room] | {room}
        ]
    )


def test_the_registry_is_entered_by_its_three_doors() -> None:
    """Other rooms import registry.client, .bundle and .types; storage and rules stay inside."""
    fail_on_breaches(
        [
            f"{location(path, line)}: {name} is not one of the registry's doors {doors}"
            for room, path in sources(*ROOMS)
            if room != "registry"
            for doors in [TURNOUT_DOORS if room == "turnout" else REGISTRY_DOORS]
            for line, name in imports(path)
            if name.split(".")[0] == "registry"
            and not any(f"{name}.".startswith(f"{door}.") for door in doors)
        ]
    )


def test_only_the_gateway_knows_the_native_front_door() -> None:
    """turnout_ingress is optional; one room decides whether it is there."""
    fail_on_breaches(
        [
            f"{location(path, line)}: only gateway imports turnout_ingress"
            for room, path in sources(*ROOMS)
            if room != "gateway"
            for line, name in imports(path)
            if name.split(".")[0] == "turnout_ingress"
        ]
    )


def test_imports_are_absolute() -> None:
    """A reader sees from the line alone where a name lives."""
    fail_on_breaches(
        [
            f"{location(path, line)}: write the whole name instead of {name!r}"
            for _, path in sources(*ROOMS, CLIENT_FOLDER, "tests", "benchmarks")
            for line, name in imports(path)
            if name.startswith(".")
        ]
    )


def loaded_by(module: str) -> set[str]:
    """Return the top-level names in sys.modules after a fresh interpreter imported *module*."""
    program = f"import {module}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.walk
@pytest.mark.parametrize("module", ["gateway.supervision.supervisor", "gateway.__main__"])
def test_the_supervisor_never_loads_grpc(module: str) -> None:
    """A process that execs workers must not hold grpc's threads (grpc#13873, #43055)."""
    assert "grpc" not in loaded_by(module)


@pytest.mark.parametrize("room", FOLDERS)
def test_our_room_is_not_shadowed(room: str) -> None:
    """Another distribution's `features` in site-packages would win over ours, silently."""
    module = importlib.import_module(room)
    assert Path(str(module.__file__)).parent == REPOSITORY / FOLDERS[room]


def test_the_client_imports_grpc_protobuf_and_numpy_alone() -> None:
    """Whoever installs the client gets grpcio and protobuf; numpy is optional."""
    allowed = {*sys.stdlib_module_names, "turnout_client", "grpc", "google", "numpy"}
    fail_on_breaches(
        [
            f"{location(path, line)}: turnout_client may not import {name}"
            for _, path in sources(CLIENT_FOLDER)
            for line, name in imports(path)
            if name.split(".")[0] not in allowed
        ]
    )
