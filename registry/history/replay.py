"""Replays the history into the rows that the registry's tables must have. No I/O.

The history says who changed what. The tables are what the registry decides by. `ReplayedState`
applies one entry after the other, and `TableComparison` compares the result with the rows of
a table. ACTIONS has one function for each action that the registry can write; `LedgerChange.record`
refuses to write an action that has none.

A row is a dict of column -> value as JSON has it. Secrets, messages and cards are in it by their
SHA-256. A column that the replayed row lacks cannot be proven: entries of registries before this
check do not have it.
"""

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from features.canonical import sha256_hex
from registry.history.chain import FIRST_PREVIOUS_DIGEST, HistoryRecord
from registry.types import STATUS_NAMES, lease_number

Row = dict[str, Any]
RowKey = str | int

PROVEN_TABLES: dict[str, str] = {
    "models": "model",
    "versions": "digest",
    "approvals": "place",
    "deployments": "model",
    "leases": "name",
    "findings": "sequence",
    "settings_approvals": "place",
    "reviews": "place",
}
"""The tables that a replay gives -> their key column."""

SEALED_COLUMNS = {"until_unix_ms", "holder", "token"}
"""Columns that no entry has, because storage/seals.py proves them."""

NOT_IN_MESSAGE = ("policy_digest", "message_sha256", "settings_approval", "rejection")
"""Fields of a deployment's entry that are not fields of the deployment."""

OLDER_APPROVALS: Row = {"direct": False, "ended": [], "stopped_revision": 0}
"""Columns of an approval that entries of earlier releases do not have."""
plain_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""`canonical_json` as text, in a fifth of the time, of a value in which no number is a float."""

STATUS_NUMBERS = {name: int(number) for number, name in STATUS_NAMES.items()}


class ReplayError(Exception):
    """An entry that cannot be applied. The text continues "history entry <seq> "."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(f"history entry {seq} {problem}")


@dataclass(slots=True)
class ReplayedState:
    """The rows after a number of entries, each with the number of the entry that wrote it last.

    Rows that are kept as what the entry says, because most of them are never looked at:
    deployments as [after, actor, reason, at_unix_ms], and findings as the SHA-256 of `after`.
    """

    seq: int = 0
    digest: bytes = FIRST_PREVIOUS_DIGEST
    sealed: bool = False
    """True once an entry was written by a registry that seals checkpoints (storage/seals.py)."""
    rows: dict[str, dict[RowKey, tuple[int, Any]]] = field(
        default_factory=lambda: {table: {} for table in PROVEN_TABLES}
    )
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    """(model, label) -> the version's digest, its key."""

    def apply(self, entry: HistoryRecord) -> None:
        """Apply the next entry. Raises ReplayError when its action or its contents are unknown."""
        action = ACTIONS.get(entry.action)
        if action is None:
            raise ReplayError(
                entry.seq,
                f"has the action {entry.action!r}, which this version of Turnout does not know; "
                "use the version that wrote it, or a newer one",
            )
        try:
            action(self, entry)
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ReplayError(
                entry.seq, f"({entry.action} of {entry.object}) cannot be replayed: {error!r}"
            ) from error
        self.seq, self.digest = entry.seq, entry.digest

    def expected(self, table: str, key: RowKey) -> Row:
        """Return what the row must have. A finding is {"after_sha256": ...}: see `finding_row`.

        Raises ReplayError when the entry that wrote the row last has other contents.
        """
        seq, kept = self.rows[table][key]
        try:
            if table == "deployments":
                return _deployment_row(str(key), *kept)
            if table == "findings":
                return {"after_sha256": kept}
            if table == "models" and "holdout_salt_sha256" not in kept:
                return {**kept, **self._salt_of_older_registry(key)}
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ReplayError(seq, f"has contents of another action: {error!r}") from error
        row: Row = kept
        return row

    def _salt_of_older_registry(self, model: RowKey) -> Row:
        """Return the salt's field from the model's deployment: older registries have no other."""
        written = self.rows["deployments"].get(model)
        if written is None:
            return {}
        salt = bytes.fromhex(json.loads(written[1][0])["holdout_salt"])
        return {"holdout_salt_sha256": sha256_hex(salt)}

    def to_json(self) -> bytes:
        """Return the state as JSON, from which `from_json` makes it again."""
        rows = {
            table: [[key, seq, kept] for key, (seq, kept) in rows.items()]
            for table, rows in self.rows.items()
        }
        value = {"seq": self.seq, "digest": self.digest.hex(), "sealed": self.sealed, "rows": rows}
        return json.dumps(value).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "ReplayedState":
        """Return the state that `to_json` wrote."""
        value = json.loads(content)
        state = cls(value["seq"], bytes.fromhex(value["digest"]), value["sealed"])
        for table, rows in value["rows"].items():
            state.rows[table] = {key: (seq, kept) for key, seq, kept in rows}
        for digest, (_, version) in state.rows["versions"].items():
            state.labels[version["model"], str(version["label"])] = str(digest)
        return state


def finding_row(entry: HistoryRecord) -> Row:
    """Return the row of a finding from its entry. Raises ReplayError if it is not a finding's."""
    try:
        return {**json.loads(entry.after), "sequence": _number_of(entry)}
    except (ValueError, TypeError, RecursionError) as error:
        raise ReplayError(entry.seq, f"is not of a finding: {error!r}") from error


def _number_of(entry: HistoryRecord) -> int:
    return int(entry.object.rpartition("/")[2])


def _deployment_row(model: str, after: str, who: str, why: str, at_unix_ms: int) -> Row:
    values = json.loads(after)
    row: Row = {"model": model, "revision": values["revision"]}
    if "message_sha256" in values:
        row["message_sha256"] = values["message_sha256"]
    message = {name: value for name, value in values.items() if name not in NOT_IN_MESSAGE}
    return {**row, "message": {**message, "who": who, "why": why, "at_unix_ms": at_unix_ms}}


# The actions. Each function changes the rows as the entry says.


def _register(state: ReplayedState, entry: HistoryRecord) -> None:
    model, _, label = entry.object.removeprefix("model/").partition("/version/")
    values = json.loads(entry.after)
    state.sealed = state.sealed or "card_sha256" in values
    # The model's row counts labels. Its first version brings the salt of the holdout.
    _, known = state.rows["models"].get(model, (0, {"model": model}))
    salt = {name: values.pop(name) for name in ("holdout_salt_sha256",) if name in values}
    state.rows["models"][model] = (entry.seq, {**known, **salt, "labels": int(label)})
    # The table has entities as text.
    if "entities" in values:
        values["entities"] = plain_json(values["entities"])
    state.labels[model, label] = values["digest"]
    values |= {
        "model": model,
        "label": int(label),
        "status": STATUS_NUMBERS[values["status"]],
        "standby": False,
        "was_production": False,
        "production_approval": "",
    }
    state.rows["versions"][values["digest"]] = (entry.seq, values)


def _status(state: ReplayedState, entry: HistoryRecord) -> None:
    model, _, label = entry.object.removeprefix("model/").partition("/version/")
    digest = state.labels[model, label]
    _, version = state.rows["versions"][digest]
    after = json.loads(entry.after)
    status = STATUS_NUMBERS[after["status"]]
    was_production = version["was_production"] or after["status"] == "production"
    moved = {
        "status": status,
        "standby": after["standby"],
        "was_production": was_production,
        "production_approval": after.get("production_approval", version["production_approval"]),
    }
    state.rows["versions"][digest] = (entry.seq, {**version, **moved})


def _approval(state: ReplayedState, entry: HistoryRecord) -> None:
    approvals = state.rows["approvals"]
    place = len(approvals) + 1
    values = {**OLDER_APPROVALS, **json.loads(entry.after), "place": place}
    approvals[place] = (entry.seq, {**values, "ended": plain_json(values["ended"])})


def _settings_approval(state: ReplayedState, entry: HistoryRecord) -> None:
    approvals = state.rows["settings_approvals"]
    place = len(approvals) + 1
    approvals[place] = (entry.seq, {**json.loads(entry.after), "place": place})


def _open_review(state: ReplayedState, entry: HistoryRecord) -> None:
    reviews = state.rows["reviews"]
    place = len(reviews) + 1
    values = json.loads(entry.after)
    authors = plain_json(values["authors"])
    reviews[place] = (entry.seq, {**values, "place": place, "authors": authors})


def _close_review(state: ReplayedState, entry: HistoryRecord) -> None:
    reviews = state.rows["reviews"]
    after = json.loads(entry.after)
    place = next(place for place in reversed(reviews) if reviews[place][1]["id"] == after["id"])
    closing = {name: after[name] for name in ("closed_by", "closing_reason", "closed_unix_ms")}
    reviews[place] = (entry.seq, {**reviews[place][1], **closing})


def _deploy(state: ReplayedState, entry: HistoryRecord) -> None:
    model = entry.object.removeprefix("model/").removesuffix("/deployment")
    kept = [entry.after, entry.actor, entry.reason, entry.at_unix_ms]
    state.rows["deployments"][model] = (entry.seq, kept)
    state.sealed = state.sealed or '"message_sha256"' in entry.after


def _lease(state: ReplayedState, entry: HistoryRecord) -> None:
    name = entry.object.removeprefix("lease/")
    # Earlier releases wrote the token, which had no secret part then.
    after = json.loads(entry.after)
    number = after["number"] if "number" in after else lease_number(after["token"])
    state.rows["leases"][name] = (entry.seq, {"name": name, "number": number})


def _finding(state: ReplayedState, entry: HistoryRecord) -> None:
    digest = hashlib.sha256(entry.after.encode()).hexdigest()
    state.rows["findings"][_number_of(entry)] = (entry.seq, digest)


ACTIONS: Mapping[str, Callable[[ReplayedState, HistoryRecord], None]] = {
    "register": _register,
    "status": _status,
    "approve": _approval,
    "reject": _approval,
    "deploy": _deploy,
    "deploy rollback": _deploy,
    "deploy BREAK GLASS": _deploy,
    "deploy rejection": _deploy,
    "approve settings": _settings_approval,
    "open review": _open_review,
    "close review": _close_review,
    "lease": _lease,
    "finding": _finding,
}
"""Action of an entry -> what it does to the rows."""


# Comparison with the tables


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
