"""What the house rules look at: every hand-written Python file, parsed once."""

import ast
import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

BOTTOM = {"host", "protos", "stats", "journal"}
MIDDLE = BOTTOM | {"features", "registry"}

CLIENT = {"turnout_client"}

MAY_IMPORT: dict[str, set[str]] = {
    "host": set(),
    "protos": {"host"},
    "stats": {"host"},
    "journal": {"host", "protos"},
    "features": BOTTOM,
    "registry": BOTTOM | {"features"},
    "training": MIDDLE,
    "gateway": MIDDLE,
    "rollout": MIDDLE,
    "monitoring": MIDDLE,
    "console": MIDDLE | {"training", "gateway", "rollout", "monitoring"},
    "turnout": MIDDLE | {"training", "gateway", "rollout", "monitoring", "console"} | CLIENT,
    "turnout_client": set(),
}
"""Each room, and the rooms it may import; those of DESIGN that do not stand yet are listed too."""

ROOMS = tuple(room for room in MAY_IMPORT if (REPOSITORY / room / "__init__.py").exists())

CLIENT_FOLDER = "clients/python/src/turnout_client"
"""The package for callers. It is no room: it has a wheel of its own, for Python 3.9 and newer."""

FOLDERS = {**{room: room for room in ROOMS}, "turnout_client": CLIENT_FOLDER}
"""The folder of each package that this repository packs, by import name."""

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where one statement holds others; expressions hold none of what the rules look at."""


LISTED_NODES = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def statements(path: Path) -> tuple[LISTED_NODES, ...]:
    """Return the imports, functions and classes of one file, at whatever depth, without bodies.

    Ten times faster than ast.walk. Whole trees of 60,000 lines would be a second's work for the
    garbage collector, so none is kept, and it rests while one is made.
    """
    resting = gc.isenabled()
    gc.disable()
    try:
        found: list[ast.AST] = list(parsed(path).body)
        for node in found:  # it grows while we go
            for block in BLOCKS:
                found += getattr(node, block, ())
                if isinstance(node, LISTED_NODES) and hasattr(node, block):
                    setattr(node, block, [])
        return tuple(node for node in found if isinstance(node, LISTED_NODES))
    finally:
        if resting:
            gc.enable()


def sources(*folders: str) -> Iterator[tuple[str, Path]]:
    """Yield (folder, file) for every hand-written .py file below *folders*, in a fixed order."""
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                yield folder, path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything *path* imports; `from a import b` gives `a.b`."""
    for node in statements(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def location(path: Path, line: int = 0) -> str:
    """Return where a rule was broken, as an editor opens it."""
    return f"{path.relative_to(REPOSITORY)}:{line}" if line else str(path.relative_to(REPOSITORY))


def fail_on_breaches(breaches: list[str]) -> None:
    """Fail with one breach a line, whole, so that each can be clicked and mended."""
    if breaches:
        pytest.fail("\n".join([f"{len(breaches)} breaches:", *breaches]), pytrace=False)
