"""Every number an operator may set is on one page."""

import ast
import re

from tests.house.sources import HOUSE, no_breach, parsed, place

PAGE = HOUSE / "docs" / "limits.md"
SETTINGS = [HOUSE / "gateway" / name for name in ("settings.py", "supervisor.py")]


def declared() -> list[tuple[str, int, str]]:
    """Return (file, line, name) of each field of each *Settings class."""
    return [
        (place(path), line.lineno, line.target.id)
        for path in SETTINGS
        if path.exists()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    ]


def test_every_setting_of_the_gateway_is_in_limits_md() -> None:
    """A setting nobody can look up is a setting nobody dares to change."""
    written = set(re.findall(r"^\| `(\w+)`", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    no_breach(
        [
            f"{path}:{line}: {name} has no row in docs/limits.md"
            for path, line, name in declared()
            if name not in written
        ]
    )


def test_limits_md_names_no_setting_that_is_gone() -> None:
    """Its `## Gateway` tables list what stands in the code and nothing else."""
    text = PAGE.read_text(encoding="utf-8").partition("## Gateway")[2].partition("\n## ")[0]
    names = {name for _, _, name in declared()}
    no_breach([row for row in re.findall(r"^\| `(\w+)`", text, re.MULTILINE) if row not in names])
