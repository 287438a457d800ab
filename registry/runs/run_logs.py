"""The logs of training runs: a file a run, whose time of change is the run's last sign of life."""

import os
from collections.abc import Callable
from pathlib import Path

from host.files import make_private_folder

LOG_BYTES_MAX = 2**20
"""Bytes of one log. A trainer that prints more ends up with the first part."""
LOGS_MAX = 1_000
"""Logs that are kept. A new run deletes the oldest beyond them; the runs themselves stay."""
FULL = b"\n(the log is full; later lines were left out)\n"


class RunLogs:
    """The log files in one folder, which is made if it is absent. Calls may come from any thread.

    now_ms  clock for signs of life, Unix milliseconds.
    """

    def __init__(self, folder: Path, now_ms: Callable[[], int]) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._now_ms = now_ms

    def begin(self, run_id: str) -> None:
        """Make the log of a run, or go on with it, and delete the oldest logs beyond LOGS_MAX."""
        self.append(run_id, b"")
        oldest_first = sorted(self._folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        for path in oldest_first[:-LOGS_MAX]:
            path.unlink(missing_ok=True)

    def append(self, run_id: str, text: bytes) -> None:
        """Append to a log, up to LOG_BYTES_MAX, and note a sign of life."""
        path = self._path(run_id)
        with path.open("ab") as file:
            room = LOG_BYTES_MAX - len(FULL) - file.tell()
            if len(text) > room:
                text = text[:room] + FULL
            # Without room the log ends with FULL already.
            if room >= 0:
                file.write(text)
        # The file is closed: a write after this would change its time again.
        now_ns = self._now_ms() * 1_000_000
        os.utime(path, ns=(now_ns, now_ns))

    def heard_ms(self, run_id: str) -> int:
        """Return the last sign of life, Unix milliseconds; 0 if there is no log any more."""
        try:
            return self._path(run_id).stat().st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return 0

    def size(self, run_id: str) -> int:
        """Return the bytes of a log; 0 if there is none any more."""
        try:
            return self._path(run_id).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, run_id: str, start: int, bytes_max: int) -> bytes:
        """Return at most *bytes_max* bytes of a log from byte *start* on; empty at its end."""
        try:
            with self._path(run_id).open("rb") as file:
                file.seek(start)
                return file.read(bytes_max)
        except FileNotFoundError:
            return b""

    def _path(self, run_id: str) -> Path:
        # The caller has the id from the database.
        return self._folder / f"{run_id}.log"
