"""Where a command prints: tables and words for people, one JSON value for scripts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 160
"""Where there is no terminal to ask, nothing is folded that a log could hold."""


class Terminal:
    """Results go to stdout, everything else (progress, hints, complaints) to stderr."""

    def __init__(self, as_json: bool, stdout: Console, stderr: Console) -> None:
        self._json = as_json
        self._stdout = stdout
        self._stderr = stderr

    def result(self, value: Any, *text: Any) -> None:  # noqa: ANN401  any JSON value; any renderable
        """Print *value* as JSON where scripts asked for it, else *shown* for people."""
        if self._json:
            self._stdout.file.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
            self._stdout.file.flush()
            return
        for item in text:
            self._stdout.print(item)

    def line(self, value: Any) -> None:  # noqa: ANN401
        """Print *value* as one line of JSON: for streams of results."""
        self._stdout.file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._stdout.file.flush()

    def hint(self, text: str) -> None:
        """Say what to do next; left out where scripts read."""
        if not self._json:
            self._stderr.print(Text(text, style="dim"))

    def note(self, text: str) -> None:
        """Say what happened meanwhile, on stderr, for people and scripts alike."""
        self._stderr.print(Text(text))

    def error(self, text: str) -> None:
        """Say what went wrong, on stderr."""
        self._stderr.print(Text.assemble(("turnout: ", "bold red"), text))

    @property
    def live(self) -> bool:
        """Whether a display that redraws itself makes sense here."""
        return self._stdout.is_terminal and not self._json

    @property
    def stdout(self) -> Console:
        """For live displays."""
        return self._stdout

    @property
    def stderr(self) -> Console:
        """For lines that are no result."""
        return self._stderr

    def progress(self) -> Progress:
        """Return a progress display on stderr for anything that may take over two seconds."""
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._stderr,
            transient=True,
        )


def terminal(as_json: bool) -> Terminal:
    """Return the terminal of this run: stdout and stderr as they are now."""
    out, aside = Console(highlight=False), Console(stderr=True, highlight=False)
    for console in (out, aside):
        if not console.is_terminal:
            console.width = PIPE_WIDTH
    return Terminal(as_json, out, aside)


def text_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> Table:
    """Return *rows* as a table for people; cells are shown as text, never read as markup."""
    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        drawn.add_column(column, header_style="bold", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return drawn


def named_values(pairs: Mapping[str, object]) -> Table:
    """Return names and values, one pair a line."""
    drawn = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        drawn.add_row(Text(name, style="bold"), Text(str(value)))
    return drawn
