"""Writes the files of a new project. Nothing is ever overwritten."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from project.errors import ProjectError
from project.folder import PROJECT_FILE, PROJECT_NAME

TEMPLATES = Path(__file__).with_name("templates")
SUFFIX = ".txt"
"""Templates end in it, so that neither Python nor git takes them for what they become."""
HIDDEN = {"gitignore": ".gitignore", "gitlab-ci.yml": ".gitlab-ci.yml"}


@dataclass(frozen=True, slots=True)
class NewProject:
    """What was written."""

    root: Path
    written: tuple[str, ...]
    untouched: tuple[str, ...]
    """Files that were there before, and stay as they were."""


def write_new_project(
    root: Path,
    name: str,
    owner: str,
    *,
    into_existing: bool = False,
    extra: Mapping[str, str] | None = None,
) -> NewProject:
    """Write a project called *name* to the folder *root*.

    into_existing  whether *root* may have files already, such as those of a repository.
    extra          path -> text of further files, such as views that were guessed from a table. With
                   them the examples of Python files are left out.

    Raises ProjectError when *name* is no name, or *root* is a project or has files. Then nothing is
    written.
    """
    # Everything that can go wrong is looked at first.
    if not PROJECT_NAME.fullmatch(name):
        raise ProjectError(
            f"{name!r} is no name for a project; it is lower-case letters, digits, - and _, and "
            "begins with a letter"
        )
    if (root / PROJECT_FILE).exists():
        raise ProjectError(f"{root} is a project already; nothing was written")
    if not into_existing and root.is_dir() and any(root.iterdir()):
        raise ProjectError(
            f"{root} has files; choose another name, or write into it with --into {root}"
        )
    # An existing file wins over a template.
    texts = {**_template_texts(name, owner, with_examples=not extra), **(extra or {})}
    written, untouched = [], []
    for file, text in sorted(texts.items()):
        path = root / file
        if path.exists() or path.is_symlink():
            untouched.append(file)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
        written.append(file)
    return NewProject(root, tuple(written), tuple(untouched))


def _template_texts(name: str, owner: str, *, with_examples: bool) -> dict[str, str]:
    """Return path -> text of every template."""
    texts = {}
    for path in sorted(TEMPLATES.rglob(f"*{SUFFIX}")):
        file = path.relative_to(TEMPLATES).as_posix().removesuffix(SUFFIX)
        if file.endswith("_example.py") and not with_examples:
            continue
        text = path.read_text(encoding="utf-8")
        texts[HIDDEN.get(file, file)] = text.replace("@NAME@", name).replace("@OWNER@", owner)
    return texts
