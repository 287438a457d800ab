"""The files of one view: a folder for each ingest, with a manifest of its files.

`<view>@<first 16 hex digits of the view hash>/` has the folders `000001`, `000002` ... in the order
of ingestion. A folder appears under its number when it is complete, by one rename, and never
changes, unless a person's rows are removed (features.storage.forget). Compaction joins the folders
M to N, which follow each other, to one that is called `<M>-<N>`. The folder `pushed` has rows that
are in no ingest yet (features.storage.pushed_log).

Readers and writers of files share the lock of the view's folder. A removal of a person's rows holds
it alone.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.errors import SourceError
from features.rows import EVENT_MS_MAX
from features.storage.database import SPILL_PREFIX
from host.files import folder_lock, fsync_folder, replace_file

MANIFEST = "manifest.json"
FORMAT = 1

LEFTOVER_S = 86_400
"""No load takes longer, so an older unfinished folder belongs to no process."""

RECENT_MIN = 16
"""Ingests that are joined at once, at least, by the compaction of recent ones."""

_FOLDER = re.compile(r"(\d{6,})(?:-(\d{6,}))?")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One Parquet file of an ingest. All its rows with equal event times are in this file."""

    name: str
    rows: int
    sha256: str
    event_ms_min: int
    event_ms_max: int
    known_ms_min: int
    """The smallest instant, Unix ms, from which one of the rows is known."""


@dataclass(frozen=True, slots=True)
class StoredIngest:
    """The rows of one ingest, or of several that were compacted."""

    path: Path
    """The folder of the files and the manifest."""
    first: int
    last: int
    """The numbers of the ingests in it."""
    files: tuple[StoredFile, ...]
    digests: tuple[str, ...]
    """For each ingest the SHA-256 (hex) over its files. Compaction keeps them."""

    @property
    def rows(self) -> int:
        """The number of rows in all files."""
        return sum(file.rows for file in self.files)


def stored_ingests(folder: Path) -> list[StoredIngest]:
    """Return the ingests of a view in order, without those that a compacted folder replaces.

    Raises SourceError for a folder whose manifest cannot be read, and for files of version 0.1.0,
    which have no manifest.
    """
    # Files of the former layout lie in the folder itself. They must not be forgotten silently.
    former = sorted(folder.glob("*.parquet"))
    if former:
        raise SourceError(
            f"{folder} has files of an earlier version of Turnout, such as {former[0].name}; move "
            "the folder away and ingest its sources again"
        )
    return [_read(path, first, last) for path, first, last in _current_folders(folder)]


def newest_ingest(folder: Path) -> tuple[int, int] | None:
    """Return the number of a view's newest ingest, and when it was written, Unix ms; or None.

    Compaction writes it anew and keeps its number.
    """
    current = _current_folders(folder) if folder.is_dir() else []
    if not current:
        return None
    path, _, last = current[-1]
    try:
        return last, (path / MANIFEST).stat().st_mtime_ns // 1_000_000
    except FileNotFoundError:  # a compaction has just replaced it; the next look finds the other
        return None


def stored_files(
    ingests: Sequence[StoredIngest], from_ms: int = 0, to_ms: int = EVENT_MS_MAX
) -> list[Path]:
    """Return the files with rows that are known by *to_ms* and not older than *from_ms*."""
    return [
        ingest.path / file.name
        for ingest in ingests
        for file in ingest.files
        if file.event_ms_max >= from_ms and file.known_ms_min <= to_ms
    ]


def recent_ingests(ingests: Sequence[StoredIngest]) -> list[StoredIngest]:
    """Return the newest ingests of like size, in order; none if there are few of them."""
    joined: list[StoredIngest] = []
    rows = 0
    for ingest in reversed(ingests):
        if joined and ingest.rows > 2 * rows:
            break
        joined.append(ingest)
        rows += ingest.rows
    return joined[::-1] if len(joined) >= RECENT_MIN else []


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder beside the ingests for the files of a new one. What is left in it is deleted.

    folder  the view's folder. It is made if it is absent.
    """
    part = folder / f".{secrets.token_hex(8)}.part"
    part.mkdir(parents=True)
    try:
        with folder_lock(folder, shared=True):
            part.mkdir(exist_ok=True)  # a removal may have deleted it as a leftover
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # the view has other folders
            folder.rmdir()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Hold the lock of a view's folder together with other readers. The folder may be absent."""
    if not folder.is_dir():
        yield
        return
    with folder_lock(folder, shared=True):
        yield


def publish(part: Path, files: Sequence[StoredFile]) -> StoredIngest:
    """Make the finished files in *part* the newest ingest of its view.

    part   a folder from `new_folder`, with the files in it.
    """
    digest = ingest_digest(files)
    _write_manifest(part, files, (digest,))
    numbers = [int(match[2] or match[1]) for _, match in _folders(part.parent)]
    number = max(numbers, default=0) + 1
    # A rename never replaces a folder that has files, so two processes cannot take one number.
    while True:
        path = part.parent / f"{number:06d}"
        if _renamed(part, path):
            return StoredIngest(path, number, number, tuple(files), (digest,))
        number += 1


def publish_compacted(
    part: Path, files: Sequence[StoredFile], replaced: Sequence[StoredIngest]
) -> StoredIngest:
    """Make the files in *part* stand for the ingests *replaced*, which follow each other.

    The replaced folders stay for those who read them now. `delete_replaced` deletes them.
    Raises SourceError when another process has compacted the same ingests.
    """
    digests = tuple(digest for ingest in replaced for digest in ingest.digests)
    _write_manifest(part, files, digests)
    first, last = replaced[0].first, replaced[-1].last
    path = part.parent / f"{first:06d}-{last:06d}"
    if not _renamed(part, path):
        raise SourceError(f"another process has compacted {part.parent}; nothing was changed")
    return StoredIngest(path, first, last, tuple(files), digests)


def replace_files(ingest: StoredIngest, files: Sequence[StoredFile]) -> None:
    """Make *files*, which lie in the ingest's folder, its only ones. The caller holds the lock.

    The digests change with the rows. After a crash the old or the new files count;
    `delete_unnamed_files` deletes the others.
    """
    for file in files:
        with (ingest.path / file.name).open("rb") as stream:
            os.fsync(stream.fileno())
    digests = (ingest_digest(files),) * len(ingest.digests)
    replace_file(ingest.path / MANIFEST, _manifest(files, digests))
    delete_unnamed_files(ingest.path, files)


def delete_unnamed_files(path: Path, files: Sequence[StoredFile]) -> None:
    """Delete the Parquet files in an ingest's folder that its manifest does not name."""
    named = {file.name for file in files}
    for found in path.glob("*.parquet"):
        if found.name not in named:
            found.unlink()
    fsync_folder(path)


def delete_replaced(folder: Path, leftover_s: float = LEFTOVER_S) -> None:
    """Delete what a compacted folder replaces, and what a killed process left.

    leftover_s  age from which an unfinished folder belongs to no process.
    """
    current = {path for path, _, _ in _current_folders(folder)}
    for path, _ in _folders(folder):
        if path not in current:
            shutil.rmtree(path)
    for pattern in (".*.part", f"{SPILL_PREFIX}*"):
        for path in folder.glob(pattern):
            if time.time() - path.stat().st_mtime >= leftover_s:
                shutil.rmtree(path, ignore_errors=True)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(path, match) for path in paths if (match := _FOLDER.fullmatch(path.name))]


def _current_folders(folder: Path) -> list[tuple[Path, int, int]]:
    """Return the folders that count, with the first and the last ingest in each.

    A compacted folder replaces those that it covers. They may be half deleted, so names decide.
    """
    found = [(path, int(match[1]), int(match[2] or match[1])) for path, match in _folders(folder)]
    current: list[tuple[Path, int, int]] = []
    for path, first, last in sorted(found, key=lambda item: (item[1], -item[2])):
        if not current or last > current[-1][2]:
            current.append((path, first, last))
    return current


def _read(path: Path, first: int, last: int) -> StoredIngest:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(StoredFile(**file) for file in manifest["files"])
        digests = tuple(manifest["digests"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"the manifest in {path} cannot be read ({error!r}); take the folder from a backup, or "
            "move it away and ingest its source again"
        ) from error
    return StoredIngest(path, first, last, files, digests)


def ingest_digest(files: Sequence[StoredFile]) -> str:
    """Return the SHA-256 (hex) over the files of one ingest."""
    lines = "".join(f"{file.name} {file.sha256}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _write_manifest(part: Path, files: Sequence[StoredFile], digests: Sequence[str]) -> None:
    """Write the manifest, and bring it and the Parquet files to the disk."""
    (part / MANIFEST).write_text(_manifest(files, digests), encoding="utf-8")
    for name in [*(file.name for file in files), MANIFEST]:
        with (part / name).open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(part)


def _manifest(files: Sequence[StoredFile], digests: Sequence[str]) -> str:
    manifest = {"format": FORMAT, "files": [asdict(file) for file in files], "digests": digests}
    return json.dumps(manifest, indent=1)


def _renamed(part: Path, path: Path) -> bool:
    """Rename a folder. Returns False when *path* is taken."""
    try:
        part.rename(path)
    except OSError:
        if path.exists():
            return False
        raise
    fsync_folder(path.parent)
    return True
