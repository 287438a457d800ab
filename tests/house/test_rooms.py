"""Imports between rooms go one way, and enter the registry by its public modules."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.sources import (
    CLIENT_FOLDER,
    EVERYWHERE,
    EXAMPLES,
    FOLDERS,
    MAY_IMPORT,
    REPOSITORY,
    ROOMS,
    fail_on_breaches,
    source_files,
)

REGISTRY_PUBLIC = (
    "registry.client",
    "registry.bundle",
    "registry.explanation",
    "registry.golden",
    "registry.schedules",
    "registry.scoring",
    "registry.signed",
    "registry.types",
    "registry.version_proof",
    "registry.watching",
)
PUBLIC_TO_TURNOUT = (*REGISTRY_PUBLIC, "registry.api.server")
"""turnout starts the control process, so it may also import what serves, but never the storage."""


def test_room_imports_only_rooms_below_it() -> None:
    """Rooms beside each other share the rooms below them and import nothing of each other."""
    fail_on_breaches(
        [
            f"{file.shown}:{line}: {room} may not import {name}; docs/house.md has the rooms' order"
            for room, folder in FOLDERS.items()
            for file in source_files(folder)
            for line, name in file.imports
            if (other := name.split(".")[0]) in {*MAY_IMPORT, "benchmarks", EXAMPLES, "tests"}
            and other not in MAY_IMPORT[room] | {room}
        ]
    )


def test_onnxruntime_is_imported_where_its_telemetry_is_off() -> None:
    """An import from elsewhere may be the first one, which decides whether it sends anything."""
    place = "host/onnx_runtime.py"
    fail_on_breaches(
        [
            f"{file.shown}:{line}: import onnxruntime from host.onnx_runtime, which turns its "
            "telemetry off"
            for folder in (*FOLDERS.values(), "tests", "benchmarks")
            for file in source_files(folder)
            for line, name in file.imports
            if name.split(".")[0] == "onnxruntime" and file.shown != place
        ]
    )


def test_example_imports_what_a_project_may() -> None:
    """An operator's files import turnout.define, their own folders and installed packages."""
    fail_on_breaches(
        [
            f"{file.shown}:{line}: an example may not import {name}, only turnout.define"
            for file in source_files(EXAMPLES)
            for line, name in file.imports
            if name.split(".")[0] in {*MAY_IMPORT, "benchmarks", EXAMPLES, "tests"}
            and not f"{name}.".startswith("turnout.define.")
        ]
    )


def test_example_is_loaded_and_never_imported() -> None:
    """Its files are read by path (project/loading), as an operator's are."""
    fail_on_breaches(
        [
            f"{file.shown}:{line}: load the project with project.loading.loader, not by {name!r}"
            for file in source_files(*ROOMS, CLIENT_FOLDER, "benchmarks", "tests")
            for line, name in file.imports
            if name.split(".")[0] == EXAMPLES
        ]
    )


def test_mark_of_a_walk_stands_where_its_test_is_collected() -> None:
    """tests/conftest.py reads files for the words, and leaves those without them uncollected."""
    fail_on_breaches(
        [
            f"{file.shown}: say mark.{mark} in the test's own file or its folder's conftest.py"
            for file in source_files("tests")
            for mark in ("walk", "nightly")
            if f"pytest.mark.{mark}" in file.text
            and not file.path.name.startswith(("test_", "conftest"))
        ]
    )


def test_registry_is_imported_through_its_public_modules() -> None:
    """Other rooms import the modules in REGISTRY_PUBLIC, never its storage and rules."""
    fail_on_breaches(
        [
            f"{file.shown}:{line}: {name} is not a public module of the registry {public}"
            for file in source_files(*ROOMS)
            if file.folder != "registry"
            for public in [PUBLIC_TO_TURNOUT if file.folder == "turnout" else REGISTRY_PUBLIC]
            for line, name in file.imports
            if name.split(".")[0] == "registry"
            and not any(f"{name}.".startswith(f"{module}.") for module in public)
        ]
    )


def test_native_library_is_imported_by_the_gateway_only() -> None:
    """turnout_ingress is optional, so one room decides whether to use it."""
    fail_on_breaches(
        [
            f"{file.shown}:{line}: only gateway imports turnout_ingress"
            for file in source_files(*ROOMS)
            if file.folder != "gateway"
            for line, name in file.imports
            if name.split(".")[0] == "turnout_ingress"
        ]
    )


def test_imports_are_absolute() -> None:
    """A reader sees from the line alone where a name lives."""
    fail_on_breaches(
        [
            f"{file.shown}:{line}: write the full name instead of {name!r}"
            for file in source_files(*EVERYWHERE)
            for line, name in file.imports
            if name.startswith(".")
        ]
    )


def loaded_by(module: str) -> set[str]:
    """Return the top-level names in sys.modules after a fresh interpreter imported *module*."""
    program = f"import {module}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(finished.stdout.split())


@pytest.mark.walk
@pytest.mark.parametrize("module", ["gateway.supervision.supervisor", "gateway.__main__"])
def test_supervisor_never_loads_grpc(module: str) -> None:
    """A process that starts workers must not run grpc's threads (grpc#13873, #43055)."""
    assert "grpc" not in loaded_by(module)


@pytest.mark.walk
@pytest.mark.parametrize("module", ["turnout.control", "registry.__main__", "rollout.__main__"])
def test_control_process_never_loads_onnxruntime(module: str) -> None:
    """A model that crashes, hangs or lies must not share the process of the records."""
    assert "onnxruntime" not in loaded_by(module)


@pytest.mark.parametrize("room", FOLDERS)
def test_room_is_not_shadowed_by_another_package(room: str) -> None:
    """A package named `features` in site-packages could be imported instead of the room."""
    module = importlib.import_module(room)
    assert Path(str(module.__file__)).parent == REPOSITORY / FOLDERS[room]


def test_client_imports_only_grpc_protobuf_and_numpy() -> None:
    """The client depends on grpcio and protobuf, and numpy is optional."""
    allowed = {*sys.stdlib_module_names, "turnout_client", "grpc", "google", "numpy"}
    fail_on_breaches(
        [
            f"{file.shown}:{line}: turnout_client may not import {name}"
            for file in source_files(CLIENT_FOLDER)
            for line, name in file.imports
            if name.split(".")[0] not in allowed
        ]
    )
