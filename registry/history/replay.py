"""Replays the history into the rows that the registry's tables must have. No I/O.

The history says who changed what. The tables are what the registry decides by. `ReplayedState`
applies one entry after the other, and history/comparison.py compares the result with the rows of
the tables. ACTIONS has one function for each action that the registry can write;
`LedgerChange.record` refuses to write an action that has none.

A row is a dict of column -> value as JSON has it. Secrets, messages and cards are in it by their
SHA-256. A column that the replayed row lacks cannot be proven: entries of registries before this
check do not have it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    "projects": "place",
    "runs": "id",
    "incidents": "id",
    "incident_notes": "place",
    "outside_models": "model",
}
"""The tables that a replay gives -> their key column."""

SEALED_COLUMNS = {"until_unix_ms", "holder", "token"}
"""Columns that no entry has, because storage/seals.py proves them."""

NOT_IN_MESSAGE = (
    "policy_digest",
    "message_sha256",
    "settings_approval",
    "rejection",
    "project",
    "project_revision",
    "finding",
)
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
            version.setdefault("views", "")  # a snapshot of an earlier release
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
    # The table has entities and views as text. Earlier releases did not keep views.
    values["views"] = plain_json(values["views"]) if "views" in values else ""
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


def _apply_project(state: ReplayedState, entry: HistoryRecord) -> None:
    projects = state.rows["projects"]
    place = len(projects) + 1
    values = json.loads(entry.after)
    effects = plain_json(values["effects"])
    projects[place] = (entry.seq, {**values, "place": place, "effects": effects})


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


def _run(state: ReplayedState, entry: HistoryRecord) -> None:
    values = json.loads(entry.after)
    state.rows["runs"][values["id"]] = (entry.seq, values)


def _finding(state: ReplayedState, entry: HistoryRecord) -> None:
    digest = hashlib.sha256(entry.after.encode()).hexdigest()
    state.rows["findings"][_number_of(entry)] = (entry.seq, digest)


def _incident(state: ReplayedState, entry: HistoryRecord) -> None:
    # The opening has every column, and a change those that it changed.
    values = json.loads(entry.after)
    _, known = state.rows["incidents"].get(values["id"], (0, {}))
    row = {**known, **values, "sequence": entry.seq}
    state.rows["incidents"][values["id"]] = (entry.seq, row)


def _incident_note(state: ReplayedState, entry: HistoryRecord) -> None:
    notes = state.rows["incident_notes"]
    place = len(notes) + 1
    values = json.loads(entry.after)
    notes[place] = (entry.seq, {**values, "place": place})
    # A note makes its incident newer.
    _, incident = state.rows["incidents"][values["incident"]]
    incidents = state.rows["incidents"]
    incidents[values["incident"]] = (entry.seq, {**incident, "sequence": entry.seq})


def _outside_model(state: ReplayedState, entry: HistoryRecord) -> None:
    values = json.loads(entry.after)
    state.rows["outside_models"][values["model"]] = (entry.seq, values)


ACTIONS: Mapping[str, Callable[[ReplayedState, HistoryRecord], None]] = {
    "register": _register,
    "status": _status,
    "approve": _approval,
    "reject": _approval,
    "deploy": _deploy,
    "deploy rollback": _deploy,
    "deploy BREAK GLASS": _deploy,
    "deploy rejection": _deploy,
    "deploy project": _deploy,
    "deploy finding": _deploy,
    "apply project": _apply_project,
    "approve settings": _settings_approval,
    "open review": _open_review,
    "close review": _close_review,
    "lease": _lease,
    "finding": _finding,
    "queue run": _run,
    "begin run": _run,
    "return run": _run,
    "cancel run": _run,
    "end run": _run,
    "open incident": _incident,
    "change incident": _incident,
    "note incident": _incident_note,
    "add outside model": _outside_model,
}
"""Action of an entry -> what it does to the rows."""
