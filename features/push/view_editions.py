"""The editions of views that are served: read at the start, then again and again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from features.views import View
from host.clock import NS_PER_SECOND, Clock

HASH_DIGITS_MIN = 16
READ_AGAIN_S = 1.0
"""Shortest time between two reads that callers cause by names that are not known."""


class UnknownViewError(Exception):
    """No view has this name, or no edition of it has this hash."""


class ViewsNotReadError(Exception):
    """No views are known, because they could not be read yet."""


@dataclass(frozen=True, slots=True)
class ServedViews:
    """The views of one system."""

    system: str
    """The id of the system, which owns the online store (features.online.store_marker)."""
    views: tuple[View, ...]


ReadViews = Callable[[], Awaitable[ServedViews | None]]
"""Returns the views that are applied or deployed now; None: they cannot be read now."""


class ViewEditions:
    """The editions by name. What was read last counts until something else is read.

    sleep  waits for some seconds.
    """

    def __init__(
        self,
        read: ReadViews,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self._reading = asyncio.Lock()
        self._read_ns = -NS_PER_SECOND
        self.served: ServedViews | None = None

    async def read_again(self) -> None:
        """Read the views; what was read before stays where nothing can be read."""
        self._read_ns = self._clock.now_ns()
        self.served = await self._read() or self.served

    async def find(self, name: str, view_hash: str) -> Sequence[View]:
        """Return the editions that a push of rows is for: one by its hash, or else all.

        Raises UnknownViewError, ViewsNotReadError.
        """
        # The view may have been applied a moment ago.
        found = self._matching(name, view_hash)
        if not found:
            await self._read_since(self._clock.now_ns())
            found = self._matching(name, view_hash)
        if found:
            return found
        if self.served is None:
            raise ViewsNotReadError(
                "the views are not known yet, because the registry does not answer; call again"
            )
        names = sorted({view.name for view in self.served.views})
        if name in names:
            raise UnknownViewError(
                f"no edition of view {name!r} has the hash {view_hash[:64]!r}; give at least "
                f"{HASH_DIGITS_MIN} digits of one that is applied or deployed, or none"
            )
        raise UnknownViewError(
            f"no view is called {name[:64]!r}; there are {', '.join(names[:20]) or 'none'}. "
            "`turnout apply` makes a project's views known"
        )

    async def _read_since(self, asked_ns: int) -> None:
        """Return when the views were read after an instant. Calls that wait share a read."""
        async with self._reading:
            if self._read_ns < asked_ns:
                since_s = (self._clock.now_ns() - self._read_ns) / NS_PER_SECOND
                await self._sleep(max(0.0, READ_AGAIN_S - since_s))
                await self.read_again()

    def _matching(self, name: str, view_hash: str) -> list[View]:
        views = () if self.served is None else self.served.views
        if view_hash and len(view_hash) < HASH_DIGITS_MIN:
            return []
        return [
            view for view in views if view.name == name and view.view_hash.startswith(view_hash)
        ]
