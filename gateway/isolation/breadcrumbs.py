"""Which versions a worker was running when it died: a page that outlives it, and the count of two.

The supervisor makes a page for each worker; the worker writes a version's id there once, and sets
one byte beside it around every run (.3 us). A page belongs to nobody's heap, so a crash leaves it.
"""

import mmap
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the supervisor, which reads pages, does without these imports
    import numpy as np
    from numpy.typing import NDArray

    from gateway.models.executor import Scorer

CELL_BYTES = 64
CELLS_MAX = 1_024
"""Versions of one worker: 30 models with four each are 120. Past that a version has no crumb."""

LOOP_BYTE, THREAD_BYTE, ID_OFFSET = 0, 1, 2
"""In a cell: running on the loop's thread, on one of its own, and where its 32 raw bytes begin."""

DEATHS_TO_QUARANTINE = 2
"""Workers that died while they ran a version; then it is condemned."""


def create_breadcrumb_page() -> int:
    """Return the descriptor of an empty page."""
    with tempfile.TemporaryFile() as page:
        page.truncate(CELL_BYTES * CELLS_MAX)
        return os.dup(page.fileno())


def read_running_versions(descriptor: int) -> list[str]:
    """Return the ids (hex) of the versions that were mid-run when the page's worker died."""
    with mmap.mmap(descriptor, CELL_BYTES * CELLS_MAX, access=mmap.ACCESS_READ) as page:
        cells = [
            page[start : start + CELL_BYTES]
            for start in range(0, CELL_BYTES * CELLS_MAX, CELL_BYTES)
        ]
    return [
        cell[ID_OFFSET : ID_OFFSET + 32].hex()
        for cell in cells
        if cell[LOOP_BYTE] or cell[THREAD_BYTE]
    ]


class BreadcrumbScorer:
    """A scorer that says on the page when it runs. Same calls as the scorer it wraps."""

    def __init__(self, scorer: "Scorer", cell: memoryview) -> None:
        """Build it on the loop's thread, or say so with `loop_thread`."""
        self._run = scorer.run
        self._cell = cell
        self.loop_thread = threading.main_thread().ident

    def run(self, matrix: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Score *matrix*; the byte is back to 0 whatever comes of it, unless the process dies."""
        cell = self._cell
        # A byte a thread: the loop's and the version's own may run it at once.
        place = LOOP_BYTE if threading.get_ident() == self.loop_thread else THREAD_BYTE
        cell[place] = 1
        try:
            return self._run(matrix)
        finally:
            cell[place] = 0


class BreadcrumbPage:
    """The worker's end. Without a descriptor nothing is written, as in tests of single parts."""

    def __init__(self, descriptor: int = -1) -> None:
        self._free = list(range(CELLS_MAX - 1, -1, -1)) if descriptor >= 0 else []
        self._cells: dict[str, int] = {}
        self._page = (
            memoryview(mmap.mmap(descriptor, CELL_BYTES * CELLS_MAX))
            if descriptor >= 0
            else memoryview(b"")
        )
        if descriptor >= 0:
            os.close(descriptor)

    def wrap_scorer(self, digest: str, scorer: "Scorer") -> "Scorer":
        """Return *scorer* with a crumb of its own; as it is where no cell is free."""
        if not self._free:
            return scorer
        place = self._cells[digest] = self._free.pop()
        cell = self._page[place * CELL_BYTES : (place + 1) * CELL_BYTES]
        cell[:] = bytes(CELL_BYTES)
        cell[ID_OFFSET : ID_OFFSET + 32] = bytes.fromhex(digest)
        return BreadcrumbScorer(scorer, cell)

    def release_cell(self, digest: str) -> None:
        """Give the version's cell back; a run that never returned keeps it."""
        place = self._cells.pop(digest, None)
        if place is not None and not (
            self._page[place * CELL_BYTES] or self._page[place * CELL_BYTES + 1]
        ):
            self._free.append(place)


class Suspects:
    """Versions that were mid-run when workers crashed. Pure."""

    def __init__(self) -> None:
        self._deaths: Counter[str] = Counter()
        self._first_unix_ns: dict[str, int] = {}
        self.quarantined: dict[str, tuple[str, int]] = {}
        """Id -> (why, when it first was suspect)."""

    def record_crash(self, cause: str, running: Iterable[str], unix_ns: int) -> list[str]:
        """Note one crash; return the ids that it condemned."""
        fresh = []
        for digest in running:
            self._deaths[digest] += 1
            first = self._first_unix_ns.setdefault(digest, unix_ns)
            if self._deaths[digest] >= DEATHS_TO_QUARANTINE and digest not in self.quarantined:
                why = f"{self._deaths[digest]} workers died while they ran it, the last by {cause}"
                self.quarantined[digest] = (why, first)
                fresh.append(digest)
        return fresh
