"""Reads the part of YAML that the files in deploy/ use: blocks, lists, and brackets on one line."""

import json
import re
from collections.abc import Iterator
from typing import Any

Line = tuple[int, str]
"""Indentation and text of a line that is no comment."""

QUOTED_OR_WORD = re.compile(r'("[^"]*"|-?[\d.]+(?=[,\]}]))|([\w./][\w./-]*)')
KEY = re.compile(r"([\w./-]+):(?: +(.*))?$")


def read_yaml(text: str) -> list[Any]:
    """Return the documents of *text*. ValueError for what this reader does not know."""
    documents = re.split(r"^---$", text, flags=re.MULTILINE)
    return [_read_block(list(_lines(document))) for document in documents]


def _lines(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        whole = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if whole:
            yield len(whole) - len(whole.lstrip()), whole.lstrip()


def _read_block(lines: list[Line]) -> Any:  # noqa: ANN401  any JSON
    """Return the value of lines, all of which are indented at least as the first."""
    indent, first = lines[0]
    if first.startswith("- ") or first == "-":
        return [_read_block(item) for item in _items(lines, indent)]
    if not KEY.match(first):
        if len(lines) > 1:
            raise ValueError(f"{first!r} is followed by {lines[1][1]!r}")
        return _read_scalar(first)
    values: dict[str, Any] = {}
    for group in _groups(lines, indent):
        found = KEY.match(group[0][1])
        if found is None or found[1] in values:
            raise ValueError(f"{group[0][1]!r} is no key, or the second one of its name")
        if found[2] is not None and len(group) > 1:
            raise ValueError(f"{found[1]} has a value and a block")
        values[found[1]] = _read_scalar(found[2]) if len(group) == 1 else _read_block(group[1:])
    return values


def _groups(lines: list[Line], indent: int) -> Iterator[list[Line]]:
    """Yield each line of this indentation with the deeper ones that follow it."""
    group: list[Line] = []
    for line in lines:
        if line[0] < indent:
            raise ValueError(f"{line[1]!r} is indented less than its block")
        # A list may stand at the indentation of its key.
        if line[0] == indent and group and not line[1].startswith("- "):
            yield group
            group = []
        group.append(line)
    yield group


def _items(lines: list[Line], indent: int) -> Iterator[list[Line]]:
    item: list[Line] = []
    for depth, text in lines:
        if depth == indent and item:
            yield item
            item = []
        item.append((depth + 2, text[2:]) if depth == indent else (depth, text))
    yield item


def _read_scalar(text: str | None) -> Any:  # noqa: ANN401
    """Return a word, number, truth value, or what is in brackets."""
    if text is None:
        return None
    if text[0] in "[{":
        # Words in brackets are quoted, so that JSON reads them.
        return json.loads(QUOTED_OR_WORD.sub(lambda found: found[1] or f'"{found[2]}"', text))
    try:
        return json.loads(text)
    except ValueError:
        return text
