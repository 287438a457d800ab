"""Breadcrumbs: which versions a worker was running when it crashed.

The supervisor creates a page of shared memory for each worker. The worker writes a version's id to
a cell of the page once, and sets a byte of the cell around every run of the version (.3 us). The
page outlives the worker, so after a crash the supervisor reads which versions were mid-run. A
version that was mid-run in two crashes is quarantined.
"""

import mmap
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from host.files import anonymous_file

if TYPE_CHECKING:  # the supervisor imports this module and must not load numpy
    import numpy as np
    from numpy.typing import NDArray

    from gateway.models.executor import Scorer

CELL_BYTES = 64
CELLS_MAX = 1_024
"""Versions of one worker; 30 models with four each are 120. Further versions have no cell."""

LOOP_BYTE, THREAD_BYTE, ID_OFFSET, IO_BYTE = 0, 1, 2, 34
"""Offsets in a cell: running on the loop's thread, running on another thread of Python, the 32-byte
id, and running on the I/O thread of the native server."""
RUNNING_BYTES = (LOOP_BYTE, THREAD_BYTE, IO_BYTE)

DEATHS_TO_QUARANTINE = 2
"""A version is quarantined when this many workers crashed while they ran it."""


def create_breadcrumb_page() -> int:
    """Return the descriptor of an empty page, an anonymous file; the caller closes it."""
    page = anonymous_file("turnout-breadcrumbs")
    os.ftruncate(page, CELL_BYTES * CELLS_MAX)
    return page


def read_running_versions(descriptor: int) -> list[str]:
    """Return the ids (hex) of the versions that were mid-run when the page's worker crashed."""
    with mmap.mmap(descriptor, CELL_BYTES * CELLS_MAX, access=mmap.ACCESS_READ) as page:
        cells = [
            page[start : start + CELL_BYTES]
            for start in range(0, CELL_BYTES * CELLS_MAX, CELL_BYTES)
        ]
    return [
        cell[ID_OFFSET : ID_OFFSET + 32].hex()
        for cell in cells
        if any(cell[offset] for offset in RUNNING_BYTES)
    ]


class BreadcrumbScorer:
    """Wraps a scorer and marks its runs in a cell of the page."""

    def __init__(
        self, scorer: "Scorer", cell: memoryview, native_cell: tuple[object, int, int] | None = None
    ) -> None:
        """Wrap *scorer*. Set `loop_thread` when the event loop is not on the main thread.

        native_cell  as `breadcrumb` of IngressLibrary.ModelPlan.
        """
        self._run = scorer.run
        self._cell = cell
        self.native_cell = native_cell
        self.native_model = None
        """As NativeScorer.native_model. A pass over many models scores with it and marks its runs
        in native_cell. None: there is no native model, or nothing to mark its runs in."""
        if native_cell is not None:
            self.native_model = getattr(scorer, "native_model", None)
        self.loop_thread = threading.main_thread().ident

    def run(self, matrix: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Score *matrix* (Scorer). The byte is 0 again after it, unless the process crashes."""
        cell = self._cell
        # Each thread has a byte of its own: both may run the version at the same time.
        offset = LOOP_BYTE if threading.get_ident() == self.loop_thread else THREAD_BYTE
        cell[offset] = 1
        try:
            return self._run(matrix)
        finally:
            cell[offset] = 0


class BreadcrumbPage:
    """The worker's side of its page.

    descriptor  of the page; -1 when there is no supervisor, then nothing is written.
    map_page    IngressLibrary.SharedPage. None if the library is not built.
    """

    def __init__(
        self, descriptor: int = -1, map_page: Callable[[int, int], object] | None = None
    ) -> None:
        self._free = list(range(CELLS_MAX - 1, -1, -1)) if descriptor >= 0 else []
        self._cells: dict[str, int] = {}
        self._page = (
            memoryview(mmap.mmap(descriptor, CELL_BYTES * CELLS_MAX))
            if descriptor >= 0
            else memoryview(b"")
        )
        self._native_page: object | None = None
        if descriptor >= 0:
            if map_page is not None:
                self._native_page = map_page(descriptor, CELL_BYTES * CELLS_MAX)
            os.close(descriptor)

    def wrap_scorer(self, digest: str, scorer: "Scorer") -> "Scorer":
        """Return *scorer* wrapped with a cell of its own, or unchanged when no cell is free."""
        if not self._free:
            return scorer
        index = self._cells[digest] = self._free.pop()
        cell = self._page[index * CELL_BYTES : (index + 1) * CELL_BYTES]
        cell[:] = bytes(CELL_BYTES)
        cell[ID_OFFSET : ID_OFFSET + 32] = bytes.fromhex(digest)
        if self._native_page is None:
            return BreadcrumbScorer(scorer, cell)
        start = index * CELL_BYTES
        native_cell = self._native_page, start + LOOP_BYTE, start + IO_BYTE
        return BreadcrumbScorer(scorer, cell, native_cell)

    def release_cell(self, digest: str) -> None:
        """Free the version's cell. A cell with a run that has not returned is never used again."""
        index = self._cells.pop(digest, None)
        if index is None:
            return
        cell = self._page[index * CELL_BYTES : (index + 1) * CELL_BYTES]
        if not any(cell[offset] for offset in RUNNING_BYTES):
            self._free.append(index)


class Suspects:
    """Counts the crashes in which each version was mid-run, and quarantines versions. Pure."""

    def __init__(self) -> None:
        self._deaths: Counter[str] = Counter()
        self._first_unix_ns: dict[str, int] = {}
        self.quarantined: dict[str, tuple[str, int]] = {}
        """Version id -> (reason, Unix ns of the first crash in which it was mid-run)."""

    def record_crash(self, cause: str, running: Iterable[str], unix_ns: int) -> list[str]:
        """Count one crash; return the ids of the versions that it quarantined.

        cause    how the process ended, as describe_exit says it.
        running  ids of the versions that were mid-run.
        """
        newly_quarantined = []
        for digest in running:
            self._deaths[digest] += 1
            first_unix_ns = self._first_unix_ns.setdefault(digest, unix_ns)
            if self._deaths[digest] >= DEATHS_TO_QUARANTINE and digest not in self.quarantined:
                deaths = self._deaths[digest]
                reason = f"{deaths} workers died while they ran it, the last by {cause}"
                self.quarantined[digest] = (reason, first_unix_ns)
                newly_quarantined.append(digest)
        return newly_quarantined
