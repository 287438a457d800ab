"""Compares the rows of tables with those that a replay of the history gives. No I/O."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from features.canonical import sha256_hex
from registry.history.chain import HistoryRecord
from registry.history.replay import (
    PROVEN_TABLES,
    SEALED_COLUMNS,
    ReplayedState,
    Row,
    RowKey,
    finding_row,
    plain_json,
)


@dataclass(frozen=True, slots=True)
class RowDifference:
    """The first row of a table that is not what the history says."""

    table: str
    key: RowKey
    seq: int
    """The entry that wrote the row last; 0 if none did."""
    expected: Row | None
    found: Row | None

    def to_text(self, entry: HistoryRecord | None = None) -> str:
        """Return the difference as a sentence.

        entry  entry *seq*, which is needed to name the field of a finding.
        """
        row = f"table {self.table}, row {self.key!r}"
        if self.expected is None:
            return f"{row} is in the table, and no entry of the history wrote it"
        if self.found is None:
            return f"{row} is missing from the table; history entry {self.seq} wrote it"
        expected = self.expected
        if self.table == "findings" and entry is not None:
            expected = finding_row(entry)
        for name, said, found in _fields_that_differ(expected, self.found):
            return (
                f"{row}, field {name}: the history says {_shown(said)} (entry {self.seq}), and the "
                f"table says {_shown(found)}"
            )
        return f"{row} is not what history entry {self.seq} says"


class TableComparison:
    """Compares the rows of one table, page by page in the order of their keys."""

    def __init__(self, state: ReplayedState, table: str) -> None:
        self._state = state
        self._table = table
        self._column = PROVEN_TABLES[table]
        self._sorted_keys: list[Any] = []
        self._newest_key: RowKey | None = None
        self.unproven: Counter[str] = Counter()
        """Column -> number of rows in which nothing in the history says what it must be."""

    def differences(self, rows: Sequence[Row], *, last: bool) -> list[RowDifference]:
        """Compare the next page, and return all differences, rows that are missing first.

        last  True if the table has no rows after these.

        The state must be of the same instant as the page.
        """
        # Keys are only ever added, so equal counts mean equal keys.
        expected_rows = self._state.rows[self._table]
        if len(self._sorted_keys) != len(expected_rows):
            self._sorted_keys = sorted(expected_rows)
        # Every row that the history says must be there, up to the end of the page.
        found_keys = {row[self._column] for row in rows}
        keys = self._sorted_keys
        first = 0 if self._newest_key is None else bisect_right(keys, self._newest_key)
        newest = rows[-1][self._column] if rows else self._newest_key
        end = len(keys) if last or newest is None else bisect_right(keys, newest)
        found = [self._difference(key, None) for key in keys[first:end] if key not in found_keys]
        # Every row that is there must be as the history says.
        digests = _finding_digests(rows) if self._table == "findings" else []
        for row, digest in zip_longest(rows, digests):
            key = row[self._column]
            if key not in expected_rows or self._differs(key, row, digest):
                found.append(self._difference(key, row))
        self._newest_key = newest
        return found

    def _differs(self, key: RowKey, row: Row, finding_digest: str | None) -> bool:
        # Most rows are as they should be, and these comparisons are fast.
        kept = self._state.rows[self._table][key][1]
        if finding_digest is not None:
            return bool(finding_digest != kept)
        if kept == row:
            return False
        expected = self._state.expected(self._table, key)
        if len(row) != len(expected):
            self.unproven.update(row.keys() - expected.keys() - SEALED_COLUMNS)
        return (
            not expected.items() <= row.items()
            and next(_fields_that_differ(expected, row), None) is not None
        )

    def _difference(self, key: RowKey, found: Row | None) -> RowDifference:
        known = key in self._state.rows[self._table]
        seq = self._state.rows[self._table][key][0] if known else 0
        expected = self._state.expected(self._table, key) if known else None
        return RowDifference(self._table, key, seq, expected, found)


def _finding_digests(rows: Sequence[Row]) -> list[str]:
    """Return the SHA-256 of each finding's entry, which has every column but the number."""
    fields = [{name: row[name] for name in row if name != "sequence"} for row in rows]
    if not fields:
        return []
    # One text for all rows costs a third of a text for each. They have the same names, and the
    # quotes inside of a value are escaped, so the text is cut where the first name begins.
    beginning = "{" + plain_json(min(fields[0]))
    parts = plain_json(fields)[1 + len(beginning) : -2].split("}," + beginning)
    return [sha256_hex(f"{beginning}{part}}}".encode()) for part in parts]


def _fields_that_differ(expected: Row, found: Row) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, expected, found). Parts come first, and the SHA-256 of a whole comes last."""

    def order(name: str) -> tuple[bool, bool, str]:
        return name.endswith("_sha256"), not isinstance(expected[name], dict), name

    for name in sorted(expected.keys() & found.keys(), key=order):
        said, is_now = expected[name], found[name]
        if isinstance(said, dict) and isinstance(is_now, dict):
            for part in sorted(said.keys() & is_now.keys()):
                if said[part] != is_now[part]:
                    yield f"{name}.{part}", said[part], is_now[part]
        elif said != is_now:
            yield name, said, is_now


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=repr)[:100]
