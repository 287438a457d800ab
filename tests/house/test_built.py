"""Generated files, the lock file and the wheels match their sources."""

import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from host.git import tracked_files
from protos.generate import CLIENT as CLIENT_PROTOS
from tests.house.sources import CLIENT_FOLDER, MAY_IMPORT, REPOSITORY, ROOMS, fail_on_breaches


@pytest.mark.walk
def test_generated_protos_are_fresh(tmp_path: Path) -> None:
    """Running protoc now writes, byte for byte, what is committed; `make protos` refreshes it."""
    subprocess.run(
        [sys.executable, "-m", "protos.generate", str(tmp_path)], cwd=REPOSITORY, check=True
    )

    for folder in (Path("protos"), CLIENT_PROTOS):
        generated = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        committed = {
            path.name: path.read_bytes() for path in (REPOSITORY / folder).glob("*_pb2*.py*")
        }
        fail_on_breaches(
            [
                f"{folder / name}"
                for name in generated | committed
                if generated.get(name) != committed.get(name)
            ]
        )


@pytest.mark.walk
def test_wheel_contains_only_the_rooms(tmp_path: Path) -> None:
    """No tests and no benchmarks: other packages have folders of those names."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(REPOSITORY)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    assert "LICENSE" in {path.name for path in inside}

    tops = {path.parts[0] for path in inside if not path.parts[0].endswith(".dist-info")}
    assert tops == set(ROOMS)
    assert {"predict.proto", "predict_pb2.py", "latency_edges.txt"} <= {p.name for p in inside}

    # The project that the demo plays lies beside the demo, without anything that it has made.
    example = {path for path in inside if path.is_relative_to("turnout/demo/telco")}
    files = {path.relative_to("turnout/demo/telco").as_posix() for path in example}
    tracked = tracked_files(REPOSITORY / "examples" / "telco")
    assert files == set(tracked)


def test_both_wheels_carry_the_same_licence() -> None:
    """A wheel takes its licence from its own folder, so the client's folder has a copy."""
    assert (REPOSITORY / "clients/python/LICENSE").read_bytes() == (
        REPOSITORY / "LICENSE"
    ).read_bytes()
    projects = [_project(folder) for folder in (".", "clients/python")]
    assert [project["license"] for project in projects] == ["Apache-2.0", "Apache-2.0"]
    assert [project["license-files"] for project in projects] == [["LICENSE"], ["LICENSE"]]


def test_turnout_requires_the_client_of_its_own_version() -> None:
    """The two wheels are released together: docs/decisions/0005-client-package.md."""
    turnout, client = _project("."), _project("clients/python")
    assert client["version"] == turnout["version"]
    assert f"turnout-client=={client['version']}" in turnout["optional-dependencies"]["control"]


def test_wheel_packs_every_room() -> None:
    """The list in pyproject.toml names every room, or an installed wheel lacks one."""
    assert sorted(_packed_rooms()) == sorted(ROOMS)
    assert set(ROOMS) <= set(MAY_IMPORT)


def test_makefile_and_pre_commit_check_every_room() -> None:
    """Mypy reads the same rooms in `make check` and before a commit."""
    rooms = " ".join(_packed_rooms())
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f"\nROOMS := {rooms}\n" in makefile
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert f"args: [{rooms.replace(' ', ', ')}, {CLIENT_FOLDER}]" in hooks


def lock_blocks(file: str) -> dict[str, list[str]]:
    """Return package -> its line and hashes in a lock file, without the comments."""
    blocks: dict[str, list[str]] = {}
    for line in (REPOSITORY / file).read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            name = line.partition("==")[0]
            blocks[name] = []
        if not line.lstrip().startswith("#"):
            blocks[name].append(line)
    return blocks


def test_hosts_and_developers_have_the_same_versions() -> None:
    """The hosts' lock file is a part of the developers': what is tested is what runs."""
    hosts, developers = lock_blocks("requirements.lock"), lock_blocks("requirements-dev.lock")
    fail_on_breaches([name for name in hosts if hosts[name] != developers.get(name)])
    extras = _project(".")["optional-dependencies"]
    names = {
        extra: {re.split(r"[<>=!;~ \[]", line, maxsplit=1)[0] for line in extras[extra]}
        for extra in extras
    }
    needed = names["gateway"] | names["control"] | names["training"] | names["all"]
    assert needed - {"turnout", "turnout-client"} <= hosts.keys()
    tools = names["dev"] | names["load"] | names["data"] | names["plots"]
    assert not hosts.keys() & (tools | {"flask", "werkzeug", "gevent", "requests"})
    assert tools <= developers.keys()


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-dev.lock"])
def test_lock_file_has_versions_and_hashes_but_no_addresses(file: str) -> None:
    """The address of a package index belongs to the machine that installs."""
    lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()

    fail_on_breaches([line for line in lines if "://" in line or line.startswith("--")])
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    fail_on_breaches([line for line in pins if "==" not in line or not line.endswith("\\")])


def test_dependency_has_a_reason() -> None:
    """docs/decisions/0001-dependencies.md has a row for each dependency and no other row."""
    project = _project(".")
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[<>=!;~ \[]", line, maxsplit=1)[0] for line in asked}
    page = (REPOSITORY / "docs" / "decisions" / "0001-dependencies.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| ([\w-]+) \|", page.partition("## Left out")[0], re.MULTILINE))

    unmatched = (names - {"turnout"}) ^ (rows - {"package"})
    fail_on_breaches(
        [
            f"{name}: in pyproject.toml or in the table of 0001-dependencies.md alone"
            for name in sorted(unmatched)
        ]
    )


def _packed_rooms() -> list[str]:
    """Return the rooms that the wheel packs, in pyproject.toml's order; an example is no room."""
    tables = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    packages: list[str] = tables["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return [name for name in packages if "/" not in name]


def _project(folder: str) -> dict[str, Any]:
    """Return the table [project] of the pyproject.toml in *folder*."""
    text = (REPOSITORY / folder / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table
