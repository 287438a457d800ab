"""Pages: their links lead somewhere, their lines fit, and the glossary names what exists."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.known import Breach, fail_on_new_breaches
from tests.house.sources import REPOSITORY, ROOMS, fail_on_breaches, source_files

LINE_CHARS_MAX = 160

PAGES = sorted(
    path
    for folder in ("docs", "ingress", "benchmarks", "clients", "examples")
    for path in (REPOSITORY / folder).rglob("*.md")
    if not {"target", "node_modules"} & set(path.parts)
) + sorted(REPOSITORY.glob("*.md"))

LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
PROTO_NAME = re.compile(r"^\s*(?:message|enum|service|rpc) (\w+)", re.MULTILINE)
CLASS_NAME = re.compile(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`")
"""A word in backticks in the form of a class name."""


def test_page_has_no_line_over_160_characters() -> None:
    """Tables and code blocks are excepted. One sentence, one fact; a break costs nothing."""
    fail_on_new_breaches(
        "long lines of pages",
        (
            Breach(name, f"{name}:{number}: {len(line)} characters, {LINE_CHARS_MAX} at most")
            for page in PAGES
            for name in [page.relative_to(REPOSITORY).as_posix()]
            for number, line in lines_outside_code(page)
            if len(line) > LINE_CHARS_MAX and not line.startswith("|")
        ),
    )


def lines_outside_code(page: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of the lines of *page* outside of code blocks."""
    in_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, line


def test_link_leads_to_a_file() -> None:
    """Links between pages and to files are relative to the page."""
    fail_on_breaches(
        [
            f"{page.relative_to(REPOSITORY)}:{number}: {link} does not exist"
            for page in PAGES
            for number, line in lines_outside_code(page)
            for link in LINK.findall(line)
            if not (page.parent / link).exists()
        ]
    )


def test_every_decision_is_in_the_list() -> None:
    """docs/decisions/README.md has one line for each page beside it."""
    folder = REPOSITORY / "docs" / "decisions"
    listed = LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    pages = [page.name for page in sorted(folder.glob("[0-9]*.md"))]
    fail_on_breaches(
        [f"docs/decisions/README.md needs {name}" for name in pages if name not in listed]
    )


def test_class_in_the_glossary_exists() -> None:
    """A class that is renamed is renamed in the glossary too."""
    page = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    classes = {
        item.name for file in source_files(*ROOMS) for item in file.definitions if item.is_class
    }
    messages = {
        name
        for proto in (REPOSITORY / "protos").glob("*.proto")
        for name in PROTO_NAME.findall(proto.read_text(encoding="utf-8"))
    }
    rust = {
        name
        for path in (REPOSITORY / "ingress" / "src").rglob("*.rs")
        for name in re.findall(r"\b(?:struct|enum|trait) (\w+)", path.read_text(encoding="utf-8"))
    }
    fail_on_breaches(
        [
            f"docs/glossary.md: `{name}` is no class of a room, no message and no Rust type"
            for name in sorted(set(CLASS_NAME.findall(page)))
            if name not in classes | messages | rust
        ]
    )
