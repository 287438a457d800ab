"""How far the readers of a journal are, so that retention keeps what they have not read.

A reader that must see each record once, as monitoring does, writes the file NAME.progress.json into
the journal's folder from time to time. It has an offset for each segment: what lies before it is
read and safe elsewhere. The file is a word to retention and to operators. The reader's own position
belongs where its results are, in one transaction with them.

A reader that has not written its file for READER_DAYS_MAX counts as gone, so that a forgotten file
does not keep people's data for ever.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from host.clock import DAY_S
from host.files import replacing_file

READER_DAYS_MAX = 7
SUFFIX = ".progress.json"
_READER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class ReaderProgress:
    """The progress of one reader."""

    reader: str
    offsets: Mapping[str, int]
    """Segment -> bytes of it that are read. A segment that is not named is not read."""
    noted_s: float
    """When the reader noted it, Unix seconds."""


def note_progress(folder: Path, reader: str, offsets: Mapping[str, int]) -> None:
    """Write how far *reader* is in the journal in *folder*, which replaces its earlier word.

    reader   a name of small letters, digits, - and _, at most 64.
    offsets  as `journal.reader.JournalReader.offsets`, of records that are safe elsewhere.

    Raises ValueError for another name, OSError when the disk refuses.
    """
    if not _READER.fullmatch(reader):
        raise ValueError(
            f"a reader is named by small letters, digits, - and _, at most 64: not {reader!r}"
        )
    with replacing_file(folder / f"{reader}{SUFFIX}", durable=False) as beside:
        beside.touch(mode=0o600)
        beside.write_text(json.dumps({"offsets": dict(offsets)}), encoding="utf-8")


def forget_reader(folder: Path, reader: str) -> None:
    """Remove the word of a reader that will not come back."""
    (folder / f"{reader}{SUFFIX}").unlink(missing_ok=True)


def read_progress(folder: Path, now_s: float) -> list[ReaderProgress]:
    """Return the progress of the readers of *folder* that are not gone.

    A file that cannot be read stands for a reader that has read nothing.

    now_s  the present, Unix seconds.
    """
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            noted_s, content = path.stat().st_mtime, path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue  # it was removed meanwhile
        if now_s - noted_s > READER_DAYS_MAX * DAY_S:
            continue
        reader = path.name.removesuffix(SUFFIX)
        found.append(ReaderProgress(reader, _offsets(content), noted_s))
    return found


def _offsets(content: str) -> dict[str, int]:
    try:
        offsets = json.loads(content)["offsets"]
        return {segment: offset for segment, offset in offsets.items() if type(offset) is int}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
