"""Makes a stopped registry's history look as an earlier release of Turnout wrote it."""

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.history.chain import entry_digest, head_bytes
from registry.keys import signing_key


def forget_fields(folder: Path, newer: Mapping[str, set[str]]) -> None:
    """Take fields out of all entries, and hash and sign the history anew.

    newer  action -> fields that the earlier release did not write; "" for every action.
    """
    connection = sqlite3.connect(folder / "registry.sqlite")
    connection.row_factory = sqlite3.Row
    key = signing_key(folder / "keys")
    digest = bytes(32)
    for row in connection.execute("SELECT * FROM history ORDER BY seq").fetchall():
        entry = pb.HistoryEntry(**dict(row))
        forgotten = newer.get("", set()) | newer.get(entry.action, set())
        after = json.loads(entry.after)
        kept = {name: value for name, value in after.items() if name not in forgotten}
        entry.after = canonical_json(kept).decode()
        entry.previous = digest
        digest = entry_digest(entry)
        connection.execute(
            "UPDATE history SET after = ?, previous = ?, digest = ? WHERE seq = ?",
            (entry.after, entry.previous, digest, entry.seq),
        )
    connection.execute(
        "UPDATE head SET digest = ?, signature = ?",
        (digest, key.sign(head_bytes(entry.seq, digest))),
    )
    connection.commit()
    connection.close()
    (folder / "history.snapshot").unlink(missing_ok=True)
