"""Finds the folder of a project, and lists its files.

A project is a folder with a file `turnout.toml`:

    [project]
    name = "shop"
    format = 1
    owner = "network-ds"
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.text import read_fault
from project.errors import Problem, ProjectError

PROJECT_FILE = "turnout.toml"
FORMAT = 1
PROJECT_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
CODE_FOLDERS = ("views", "labels", "recipes", "models")
"""Folders whose Python files declare something. A file below `lib` only serves other files."""


@dataclass(frozen=True, slots=True)
class ProjectFolder:
    """The root of a project and what its turnout.toml says."""

    root: Path
    """Absolute, without symbolic links."""
    name: str
    owner: str

    def relative(self, path: Path) -> str:
        """Return *path* below the root, with slashes."""
        return path.relative_to(self.root).as_posix()


def find_project(start: Path, named: str = "") -> ProjectFolder | None:
    """Return the project of *start*: the first folder with a turnout.toml, from it upwards.

    named  the folder that --project or TURNOUT_PROJECT gives; empty: search from *start*.

    Return None when no project is found. Raises ProjectError when *named* is no project, or the
    file is wrong.
    """
    if named:
        root = Path(named).expanduser().resolve()
        root = root.parent if root.name == PROJECT_FILE else root
        if not (root / PROJECT_FILE).is_file():
            raise ProjectError(
                f"{root} has no {PROJECT_FILE}; name the folder of a project, or make one with "
                "`turnout init NAME`"
            )
        return open_project(root)
    resolved = start.resolve()
    for folder in (resolved, *resolved.parents):
        if (folder / PROJECT_FILE).is_file():
            return open_project(folder)
    return None


def open_project(root: Path) -> ProjectFolder:
    """Read the turnout.toml in *root*. Raises ProjectError when it cannot be used."""
    # Read the one table that the file has.
    tables = read_toml(root / PROJECT_FILE, PROJECT_FILE)
    table = tables.get("project")
    if not isinstance(table, dict):
        raise ProjectError(f"{PROJECT_FILE} has no table [project]; it needs name and format")
    unknown = sorted(table.keys() - {"name", "format", "owner"})
    if unknown or tables.keys() - {"project"}:
        raise ProjectError(
            f"{PROJECT_FILE} has {unknown or sorted(tables.keys() - {'project'})}, which is not "
            "known; [project] has name, format and owner"
        )
    # A newer format may mean something else by the same words.
    name, owner = table.get("name"), table.get("owner", "")
    if table.get("format") != FORMAT:
        raise ProjectError(
            f"{PROJECT_FILE} has format = {table.get('format')!r}; this release reads format "
            f"{FORMAT}"
        )
    if not isinstance(name, str) or not PROJECT_NAME.fullmatch(name) or not isinstance(owner, str):
        raise ProjectError(
            f"{PROJECT_FILE} has name = {name!r} and owner = {owner!r}; the name is lower-case "
            f"letters, digits, - and _ ({PROJECT_NAME.pattern}), and the owner is a text"
        )
    return ProjectFolder(root.resolve(), name, owner)


def read_toml(path: Path, shown: str) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ProjectError, which names the file as *shown*."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{shown} cannot be read: {read_fault(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{shown}: {error}") from error


def files_below(
    folder: ProjectFolder, names: tuple[str, ...], suffix: str
) -> tuple[list[Path], list[Problem]]:
    """Return the files that end in *suffix* below these folders of the project, sorted.

    Files whose name begins with a dot or an underscore are left out; a symbolic link that leads out
    of the project is a problem.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    for name in names:
        for path in _walk(folder.root / name):
            # The project's revision must hold all that it depends on.
            if not path.resolve().is_relative_to(folder.root):
                problems.append(
                    Problem(
                        folder.relative(path),
                        0,
                        "this is a symbolic link out of the project; copy the file into it",
                    )
                )
            elif path.is_file() and path.suffix == suffix:
                files.append(path)
    return sorted(files), problems


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files below *folder*, and links without following those that lead to folders."""
    if folder.is_symlink():
        yield folder
        return
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def text_field(table: Mapping[str, Any], key: str, where: str, default: str = "") -> str:
    """Return the text under *key*, or *default*. Raises ProjectError for anything but a text."""
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ProjectError(f"{where}: {key} = {value!r}; it must be a text in quotes")
    return value
