"""Files with rows for a command: JSON lines if the first line is an object, and else CSV."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from host.text import read_fault
from turnout.errors import UsageError

Cells = Mapping[str, object]
"""The cells of a row by column: texts in CSV, any JSON value in JSON lines."""


def read_row_file(path: Path) -> Iterator[tuple[int, Cells]]:
    """Yield the line and the cells of each row. UsageError names the line that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {read_fault(error)}") from error
    is_json = text.lstrip().startswith("{")
    yield from _json_lines(path, text) if is_json else _csv_lines(path, text)


def entity_ids(where: str, entities: Sequence[str], cells: Cells) -> list[str]:
    """Return the ids of a row, one for each entity. UsageError for a cell that is no id."""
    for name in entities:
        identity = cells.get(name)
        # A float would become another text than the id was, such as 42.0.
        if identity == "" or isinstance(identity, bool) or not isinstance(identity, (str, int)):
            raise UsageError(f"{where}: {name} is {identity!r}, which is no entity id")
    return [str(cells[name]) for name in entities]


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Cells]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(cells, dict):
            raise UsageError(f"{path}, line {number} is no JSON object, such as {{...}}")
        yield number, cells


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, Cells]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if None in cells or None in cells.values():
                raise UsageError(
                    f"{path}, line {reader.line_num} has more or fewer cells than the head"
                )
            yield reader.line_num, cells
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num} is not CSV: {error}") from error
