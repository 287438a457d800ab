"""Reads the blocks of a page that can be run.

A block fenced as ```python is a program. In a block fenced as ```console, each line that begins
with `$ ` is a command that must exit with 0, and the other lines show what it prints. Blocks
fenced as ```java, ```go, ```javascript, ```sh and ```ghz are fragments, which their tests complete.
Other blocks are not run.
"""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^```(?P<kind>python|console|java|go|javascript|sh|ghz)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Snippet:
    """One program, or the commands of one block in their order."""

    page: str
    line: int
    kind: str
    body: str

    @property
    def commands(self) -> list[str]:
        """The commands of a console block."""
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]

    def __str__(self) -> str:
        """Return page:line, as an editor opens it."""
        return f"{self.page}:{self.line}"


def snippets(page: Path, *kinds: str) -> list[Snippet]:
    """Return the blocks of *page* whose fence is one of *kinds*, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(page.name, text[: match.start()].count("\n") + 1, match["kind"], match["body"])
        for match in FENCE.finditer(text)
        if match["kind"] in kinds
    ]
