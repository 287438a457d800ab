"""Random single edits of a stopped registry's folder, as somebody with a shell would make them."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos import registry_pb2 as pb
from registry.history.chain import entry_digest, head_bytes

Edit = Callable[[random.Random, Path], str]
"""Makes one edit, and returns a text that the registry must use to name it; empty if the edit
changed nothing."""

FILES = ("keys/registry.ed25519", "keys/prediction_id.key", "history.snapshot")


def _connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "registry.sqlite", isolation_level=None)


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [name for (name,) in rows if connection.execute(f"SELECT 1 FROM {name}").fetchone()]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _some_rowid(generator: random.Random, connection: sqlite3.Connection, table: str) -> int:
    rowids = [row[0] for row in connection.execute(f"SELECT rowid FROM {table}")]
    return generator.choice(rowids)


def _name_of(table: str) -> str:
    """The text that names an edit of this table."""
    # A seal is named by the row that it seals.
    names = {"history": "history entry", "head": "head", "seals": "seal"}
    return names.get(table, f"table {table}")


def _other_value(generator: random.Random, value: Any) -> Any:  # noqa: ANN401
    """Another value: near to this one, or of another kind."""
    near: list[Any]
    if isinstance(value, int):
        near = [value + 1, value - 1, 1 - value, -value - 1, 2**40, 0]
    elif isinstance(value, bytes):
        flipped = bytearray(value or b"x")
        flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        near = [bytes(flipped), value[:-1], value + b"\0", b"", value.hex()]
    else:
        text = str(value)
        cut = generator.randrange(len(text) + 1)
        near = [text[:cut] + "x" + text[cut:], text[:cut], text + " ", "bob", "", text.encode()]
        near += [text[:cut].encode() + b"\xff", text.swapcase()]
    return generator.choice([other for other in near if other != value])


def change_value(generator: random.Random, folder: Path) -> str:
    """Change one column of one row."""
    connection = _connect(folder)
    table = generator.choice(_tables(connection))
    rowid = _some_rowid(generator, connection, table)
    column = generator.choice(_columns(connection, table))
    read = f"SELECT {column} FROM {table} WHERE rowid = ?"
    ((before,),) = connection.execute(read, (rowid,)).fetchall()
    after = _other_value(generator, before)
    content = _content(connection, table)
    try:
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (after, rowid))
        # SQLite may have converted the value back to what it was.
        changed = _content(connection, table) != content
    except sqlite3.IntegrityError:
        return ""
    finally:
        connection.close()
    return _name_of(table) if changed else ""


def _content(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    """All values of a table with their types; text that is not UTF-8 is read as well."""
    columns = ", ".join(f"CAST({c} AS BLOB), typeof({c})" for c in _columns(connection, table))
    return connection.execute(f"SELECT {columns} FROM {table}").fetchall()


def delete_row(generator: random.Random, folder: Path) -> str:
    """Delete one row."""
    connection = _connect(folder)
    table = generator.choice(_tables(connection))
    rowid = _some_rowid(generator, connection, table)
    connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
    connection.close()
    return _name_of(table)


def copy_row(generator: random.Random, folder: Path) -> str:
    """Insert a copy of one row under another key."""
    connection = _connect(folder)
    table = generator.choice(_tables(connection))
    rowid = _some_rowid(generator, connection, table)
    columns = _columns(connection, table)
    row = list(connection.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,)).fetchone())
    # Every column that must be unique gets a new value.
    for column in ("model", "digest", "label", "place", "id", "name", "object", "rollout_id",
                   "sequence", "seq", "only"):  # fmt: skip
        if column in columns:
            value = row[columns.index(column)]
            new = 9_000 if isinstance(value, int) else "f" * max(len(value), 1)
            row[columns.index(column)] = new
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)
    connection.close()
    return _name_of(table)


def swap_values(generator: random.Random, folder: Path) -> str:
    """Swap the values of one column in two rows."""
    connection = _connect(folder)
    table = generator.choice(_tables(connection))
    first, second = (_some_rowid(generator, connection, table) for _ in range(2))
    keys = {"place", "sequence", "seq", "digest", "object", "id", "rollout_id", "name", "label"}
    column = generator.choice([c for c in _columns(connection, table) if c not in keys])
    read = f"SELECT {column} FROM {table} WHERE rowid = ?"
    values = [connection.execute(read, (rowid,)).fetchone()[0] for rowid in (first, second)]
    connection.execute("BEGIN")
    try:
        for rowid, value in ((first, values[1]), (second, values[0])):
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
        connection.execute("COMMIT")
    except sqlite3.IntegrityError:
        return ""
    finally:
        connection.close()
    return "" if values[0] == values[1] else _name_of(table)


def truncate_history(generator: random.Random, folder: Path) -> str:
    """Delete the newest entries, and move the head."""
    connection = _connect(folder)
    newest = connection.execute("SELECT max(seq) FROM history").fetchone()[0]
    last = newest - generator.randrange(1, min(5, newest - 1))
    connection.execute("DELETE FROM history WHERE seq > ?", (last,))
    connection.execute(
        "UPDATE head SET seq = ?, digest = (SELECT digest FROM history WHERE seq = ?)", (last, last)
    )
    connection.close()
    return "history"


def rewrite_history(generator: random.Random, folder: Path) -> str:
    """Change an entry, hash all entries anew, and sign the head with a key of one's own."""
    connection = _connect(folder)
    connection.row_factory = sqlite3.Row
    rows = connection.execute("SELECT * FROM history ORDER BY seq").fetchall()
    changed = generator.randrange(len(rows))
    previous = bytes(32)
    for index, row in enumerate(rows):
        entry = pb.HistoryEntry(**dict(row))
        entry.previous = previous
        entry.actor = "eve" if index == changed else entry.actor
        previous = entry_digest(entry)
        connection.execute(
            "UPDATE history SET actor = ?, previous = ?, digest = ? WHERE seq = ?",
            (entry.actor, entry.previous, previous, entry.seq),
        )
    key = Ed25519PrivateKey.generate()
    connection.execute(
        "UPDATE head SET digest = ?, signature = ?, public_key = ?",
        (
            previous,
            key.sign(head_bytes(len(rows), previous)),
            key.public_key().public_bytes_raw(),
        ),
    )
    connection.close()
    return "history"


def change_schema(generator: random.Random, folder: Path) -> str:
    """Add a trigger, or empty a table."""
    connection = _connect(folder)
    if generator.random() < 0.3:
        connection.execute(
            "CREATE TRIGGER later AFTER INSERT ON approvals BEGIN "
            "UPDATE approvals SET rejected = 0; END"
        )
        connection.close()
        return "trigger"
    table = generator.choice(_tables(connection))
    connection.execute(f"DROP TABLE {table}")
    connection.close()
    return _name_of(table)


def change_file(generator: random.Random, folder: Path) -> str:
    """Flip one bit of a key or of the snapshot, cut it, or put another key there."""
    name = generator.choice(FILES)
    file = folder / name
    if not file.exists():
        return ""
    content = bytearray(file.read_bytes())
    kind = generator.randrange(3)
    if kind == 0:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    elif kind == 1:
        del content[generator.randrange(len(content)) :]
    else:
        content = bytearray(generator.randbytes(len(content)))
    file.write_bytes(content)
    return "keys/" if name.startswith("keys/") and kind != 1 else file.name


def remove_file(generator: random.Random, folder: Path) -> str:
    """Remove a key, the database, or all versions."""
    name = generator.choice(["keys/registry.ed25519", "keys/prediction_id.key", "registry.sqlite",
                             "versions"])  # fmt: skip
    if name == "versions":
        shutil.rmtree(folder / name)
    elif name == "registry.sqlite" and generator.random() < 0.5:
        (folder / name).write_bytes(b"")
    else:
        (folder / name).unlink()
    return name


def change_version_file(generator: random.Random, folder: Path) -> str:
    """Flip one bit in a file of a version, or remove the file or the folder."""
    version = generator.choice(sorted((folder / "versions").iterdir()))
    file = generator.choice(sorted(version.iterdir()))
    kind = generator.randrange(4)
    if kind == 0:
        shutil.rmtree(version)
    elif kind == 1:
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        file.chmod(0o644)
        file.write_bytes(content)
    return f"version {version.name}"


EDITS: dict[Edit, int] = {
    change_value: 60,
    delete_row: 8,
    copy_row: 6,
    swap_values: 8,
    truncate_history: 2,
    rewrite_history: 2,
    change_schema: 2,
    change_file: 6,
    remove_file: 2,
    change_version_file: 4,
}
"""Each edit, and how many of a hundred are of its kind."""


def make_random_edit(generator: random.Random, folder: Path) -> tuple[str, str]:
    """Make one random edit; return its kind, and the text that must name it."""
    edit = generator.choices(list(EDITS), weights=list(EDITS.values()))[0]
    try:
        return edit.__name__, edit(generator, folder)
    except sqlite3.IntegrityError:
        # SQLite itself refused it.
        return edit.__name__, ""
