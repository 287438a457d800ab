"""Files that nothing uses: modules and pages."""

import re
from functools import cache
from pathlib import Path

from tests.house.sources import (
    EVERYWHERE,
    EXAMPLES,
    REPOSITORY,
    SourceFile,
    fail_on_breaches,
    imported_modules,
    source_files,
)
from tests.house.test_pages import PAGES

ALWAYS_USED = re.compile(r"^(test_\w+|conftest|__init__|__main__|env|r\d{4}_\w+)$")
"""pytest collects these files, or Python runs them, or Alembic runs them as migrations."""

FIRST_PAGES = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
"""Pages that a newcomer finds in the listing of the repository."""


def test_every_module_is_used() -> None:
    """A module is imported, is a program, or is named in the Makefile, pyproject, docs or code."""
    imported = {
        other.shown for file in source_files(*EVERYWHERE) for _, other in imported_modules(file)
    }
    fail_on_breaches(
        [
            f"{file.shown}: nothing imports or names it; delete it"
            for file in source_files(*EVERYWHERE)
            if file.shown not in imported
            and file.folder != EXAMPLES  # every file of a project is loaded
            and not ALWAYS_USED.match(file.path.stem)
            and '__name__ == "__main__"' not in file.text
            and not _is_named(file)
        ]
    )


def _is_named(file: SourceFile) -> bool:
    """Tell whether a text outside of *file* names it by path or by module."""
    name = re.compile(rf"(?:{re.escape(file.shown)}|\b{re.escape(file.module)})\b")
    return any(name.search(text) for path, text in _texts().items() if path != file.shown)


@cache
def _texts() -> dict[str, str]:
    """Return what may name a module: the Makefile, pyproject.toml, pages and Python files."""
    paths = [REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml", *PAGES]
    texts = {str(path): path.read_text(encoding="utf-8") for path in paths}
    return texts | {file.shown: file.text for file in source_files(*EVERYWHERE)}


def test_every_page_is_linked() -> None:
    """A page that no other page links to is not found by its readers."""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    fail_on_breaches(
        [
            f"{page.relative_to(REPOSITORY)}: link it from docs/house.md or README.md, or delete it"
            for page in PAGES
            if page.relative_to(REPOSITORY).as_posix() not in FIRST_PAGES
            and not any(
                re.search(rf"[(/`]{re.escape(_link(page))}[)#`]", text)
                for other, text in texts.items()
                if other != page
            )
        ]
    )


def _link(page: Path) -> str:
    """Return the end of a link to *page*: README files are known by their folder."""
    parts = page.relative_to(REPOSITORY).parts
    return "/".join(parts[-2:]) if page.name == "README.md" else page.name
