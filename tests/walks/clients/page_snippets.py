"""The runnable blocks of a page.

A block fenced as ```python is a whole program. In a block fenced as ```console every line that
begins with `$ ` is a command that must leave with 0; other lines are what it prints, for reading.
Blocks fenced otherwise (or not at all) are not run.
"""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(?P<kind>python|console)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """One program, or the commands of one block in order."""

    page: str
    line: int
    kind: str
    body: str

    @property
    def commands(self) -> list[str]:
        """The command lines of a console block."""
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]

    def __str__(self) -> str:
        """Where it stands, as an editor opens it."""
        return f"{self.page}:{self.line}"


def snippets(page: Path, *kinds: str) -> list[Snippet]:
    """Return the blocks of *page* whose fence is one of *kinds*, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(page.name, text[: found.start()].count("\n") + 1, found["kind"], found["body"])
        for found in FENCE.finditer(text)
        if found["kind"] in kinds
    ]
