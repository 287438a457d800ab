"""How many bytes of outcome reports each caller, and the folder, may have in the journal."""

import asyncio
import contextlib
from pathlib import Path

from gateway.caller import Caller
from gateway.status import Code, Refusal, RefusedError
from host.clock import NS_PER_SECOND, Clock
from journal.segment import JournalKind, list_segments

BURST_S = 10
"""Seconds' worth of bytes that a caller who was silent may send at once."""
FOLDER_CHECK_S = 10
"""Seconds between two looks at the folder, to which all workers of the host write."""


class OutcomeBudget:
    """Counts the bytes that one worker writes. Touched by the event loop's thread only.

    caller_bytes_s    bytes a second of each caller; those without an identity are one caller.
    folder_bytes_max  bytes of all outcome segments in *folder*.
    """

    def __init__(
        self, folder: Path, clock: Clock, caller_bytes_s: int, folder_bytes_max: int
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._caller_bytes_s = caller_bytes_s
        self._folder_bytes_max = folder_bytes_max
        self._spent: dict[str, tuple[float, int]] = {}
        """Caller -> (bytes that are not paid off yet, when that was)."""
        self._folder_bytes = 0
        self._checked_ns: int | None = None

    async def spend(self, caller: Caller, size: int) -> None:
        """Count *size* bytes of *caller*; RefusedError RESOURCE_EXHAUSTED beyond a bound."""
        now_ns = self._clock.now_ns()
        # The folder, as it was at the last look plus what this worker wrote since.
        due = self._checked_ns is None or now_ns - self._checked_ns > FOLDER_CHECK_S * NS_PER_SECOND
        if due:
            self._checked_ns = now_ns
            self._folder_bytes = await asyncio.to_thread(measure_outcomes, self._folder)
        if self._folder_bytes + size > self._folder_bytes_max:
            raise RefusedError(
                Refusal(
                    Code.RESOURCE_EXHAUSTED,
                    f"this host keeps {self._folder_bytes} bytes of outcomes, of at most "
                    f"{self._folder_bytes_max} (outcome_journal_mb_max); its operator archives "
                    "old segments, and then send the report again",
                )
            )
        # The caller's own bytes.
        spent, at_ns = self._spent.get(caller.name, (0.0, now_ns))
        spent = max(0.0, spent - (now_ns - at_ns) * self._caller_bytes_s / NS_PER_SECOND) + size
        if spent > BURST_S * self._caller_bytes_s:
            wait_ms = 1 + (1_000 * size) // self._caller_bytes_s
            raise RefusedError(
                Refusal(
                    Code.RESOURCE_EXHAUSTED,
                    f"this caller's reports exceed {self._caller_bytes_s} bytes a second "
                    "(outcome_caller_bytes_s); nothing was kept; send the report again later",
                    pushback_ms=max(wait_ms, 100),
                )
            )
        self._spent[caller.name] = (spent, now_ns)
        self._folder_bytes += size


def measure_outcomes(folder: Path) -> int:
    """Return the bytes of all outcome segments in *folder*."""
    total = 0
    for name in list_segments(folder, JournalKind.OUTCOMES):
        with contextlib.suppress(OSError):  # it was archived meanwhile
            total += (folder / str(name)).stat().st_size
    return total
