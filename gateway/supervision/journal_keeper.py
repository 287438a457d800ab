"""Deletes old segments of the host's journal, for the supervisor."""

import asyncio
import logging
from collections import Counter
from pathlib import Path

from host.clock import NS_PER_SECOND, Clock
from journal.retention import Bounds, JournalUse, delete_old_segments

CHECK_S = 60
"""Period of the looks at the journal."""

log = logging.getLogger(__name__)


class JournalKeeper:
    """Keeps the bounds of the journal in *folder*, and knows what it takes and what was deleted."""

    def __init__(self, folder: Path, bounds: Bounds, clock: Clock) -> None:
        self._folder = folder
        self._bounds = bounds
        self._clock = clock
        self.use: JournalUse | None = None
        """The journal at the last look; None before the first."""
        self.deleted: Counter[tuple[str, str]] = Counter()
        """(kind, cause) -> segments deleted since the start."""

    async def run(self) -> None:
        """Look at once and then every minute, until cancelled.

        A thread does it, because the disk may be slow and the supervisor's loop may not.
        """
        while True:
            try:
                now_s = self._clock.unix_ns() / NS_PER_SECOND
                self.use = await asyncio.to_thread(
                    delete_old_segments, self._folder, self._bounds, now_s
                )
            except Exception:  # the next look may succeed, and without looks the disk fills
                log.exception("old segments in %s cannot be deleted", self._folder)
            else:
                self.deleted.update(self.use.deleted)
                if self.use.deleted:
                    log.info("deleted segments %s", dict(self.use.deleted))
            await asyncio.sleep(CHECK_S)
