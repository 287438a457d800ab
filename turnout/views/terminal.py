"""Where a command prints: tables and text for people, or one JSON value for scripts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from host.text import escape_all_but_line_breaks, escape_controls, escape_controls_in_json
from turnout.views.json_values import json_text

PIPE_WIDTH = 160
"""Columns of output that goes to no terminal, so that lines in a log are not folded."""


class EscapingConsole(Console):
    """A console that shows control characters in text instead of sending them to the terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of *renderable*, escaped. Rich's own controls pass."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(escape_all_but_line_breaks(segment.text), segment.style)


class Terminal:
    """Prints results to stdout, and everything else (progress, hints, errors) to stderr."""

    def __init__(self, as_json: bool, stdout: Console, stderr: Console) -> None:
        self._json = as_json
        self._stdout = stdout
        self._stderr = stderr
        self._ascii_json = not stdout.encoding.startswith("utf")
        """JSON has escapes for what the locale has no letters for."""

    def result(self, value: Any, *text: Any) -> None:  # noqa: ANN401  any JSON value; any renderable
        """Print *value* as JSON with --json, else the items of *text*."""
        if self._json:
            self._write_json(json_text(value, indent=1, ascii_only=self._ascii_json))
            return
        for item in text:
            self._stdout.print(item)

    def line(self, value: Any) -> None:  # noqa: ANN401
        """Print *value* as one line of JSON, for streams of results."""
        self._write_json(json_text(value, ascii_only=self._ascii_json))

    def _write_json(self, text: str) -> None:
        self._stdout.file.write(escape_controls_in_json(text) + "\n")
        self._stdout.file.flush()

    def hint(self, text: str) -> None:
        """Print what to do next to stderr; with --json, print nothing."""
        if not self._json:
            self._stderr.print(Text(text, style="dim"))

    def note(self, text: str) -> None:
        """Print what happened meanwhile to stderr, also with --json."""
        self._stderr.print(Text(text))

    def error(self, text: str) -> None:
        """Print an error to stderr."""
        self._stderr.print(Text.assemble(("turnout: ", "bold red"), text))

    @property
    def live(self) -> bool:
        """Whether stdout can show a display that redraws itself."""
        return self._stdout.is_terminal and not self._json

    @property
    def stdout(self) -> Console:
        """The console for results and live displays."""
        return self._stdout

    @property
    def stderr(self) -> Console:
        """The console for everything but results."""
        return self._stderr

    def progress(self) -> Progress:
        """Return a progress display on stderr, for work that may take over two seconds."""
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
    """Return a Terminal on this process's stdout and stderr."""
    stdout, stderr = EscapingConsole(highlight=False), EscapingConsole(stderr=True, highlight=False)
    for console in (stdout, stderr):
        if not console.is_terminal:
            console.width = PIPE_WIDTH
    return Terminal(as_json, stdout, stderr)


def text_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> Table:
    """Return *rows* as a table. Cells are shown as they are and never read as markup."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, header_style="bold", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else _plain(cell) for cell in row))
    return table


def named_values(pairs: Mapping[str, object]) -> Table:
    """Return a table with one name and its value on each line."""
    table = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        table.add_row(Text(name, style="bold"), _plain(value))
    return table


def _plain(value: object) -> Text:
    """Return *value* as text, escaped before a column's width is computed."""
    return Text(escape_controls(str(value)))
