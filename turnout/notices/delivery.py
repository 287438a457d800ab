"""Delivers notices at least once: the history is the queue, and a file has each target's position.

The position of a target is a number of the history: every change of an incident up to it was
delivered. It moves after a delivery, so a control process that is killed between the two sends that
notice again, with the same webhook-id. Several changes of one incident that wait are one notice, of
its newest state. Each target has its own task, so a slow one delays no other and no rollout.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from host.files import replace_file
from host.retry import Backoff
from project.notice_targets import NoticeTarget
from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import RegistryError
from turnout.notices.messages import notice_of
from turnout.notices.post import POST_S, NoticeError, post_notice

log = logging.getLogger(__name__)

GROUP_S = 0.5
"""How long changes of one incident are gathered: its opening, its links and what followed."""
BACKOFF_FIRST_S, BACKOFF_MAX_S = 1.0, 60.0
REFUSALS_MAX = 5
"""Tries of a notice that the receiver refuses as a bad request. Then it is logged and left out."""
SEVERITIES: Mapping[str, int] = {
    "review": pb.Incident.REVIEW,
    "warning": pb.Incident.WARNING,
    "page": pb.Incident.PAGE,
}


class Positions:
    """The position of each target, in a file that is replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of: dict[str, int] = {}
        try:
            value = json.loads(path.read_bytes())
            self._of = {str(name): int(number) for name, number in value.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            # Without positions the open incidents are sent again, which receivers expect.
            log.warning("notices: %s cannot be read (%s); open incidents are sent", path, error)

    def of(self, target: str) -> int:
        """Return the position of a target; 0 for a new one."""
        return self._of.get(target, 0)

    def move(self, target: str, position: int) -> None:
        """Write a later position of a target."""
        if position <= self.of(target):
            return
        self._of[target] = position
        replace_file(self._path, json.dumps(self._of, sort_keys=True).encode())


@dataclass(slots=True)
class _Waiting:
    """Incidents that are not delivered in their newest state."""

    incidents: dict[str, pb.Incident] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    seen: int = 0
    """The newest change that was read."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def delivered(self) -> int:
        """Every change up to this number was delivered."""
        oldest = min((item.sequence for item in self.incidents.values()), default=self.seen + 1)
        return oldest - 1


class TargetDelivery:
    """Delivers to one target, until cancelled.

    group_s  how long changes of one incident are gathered.
    post_s   timeout of one try.
    """

    def __init__(
        self,
        target: NoticeTarget,
        registry: RegistryClient,
        positions: Positions,
        *,
        group_s: float = GROUP_S,
        post_s: float = POST_S,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._target = target
        self._registry = registry
        self._positions = positions
        self._group_s = group_s
        self._post_s = post_s
        self._unix_s = unix_s
        self._began_ms = unix_s() * 1_000
        self._waiting = _Waiting(seen=positions.of(target.name))

    async def run(self) -> None:
        """Read changes and send notices, each in a task of its own."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._send())

    async def _read(self) -> None:
        """Follow the changes. What waits is bounded by the number of incidents."""
        waiting, backoff = self._waiting, Backoff(0.5, 10.0)
        is_new = not waiting.seen
        while True:
            try:
                async for incident in self._registry.watch_incidents(waiting.seen):
                    waiting.seen = incident.sequence
                    if self._is_sent(incident, is_new=is_new):
                        waiting.incidents[incident.id] = incident
                    else:
                        waiting.incidents.pop(incident.id, None)
                    waiting.news.set()
                    backoff.reset()
            except RegistryError as error:
                log.info("notices: the registry does not answer: %s", error)
            await asyncio.sleep(backoff.next_s())

    def _is_sent(self, incident: pb.Incident, *, is_new: bool) -> bool:
        """Whether a notice is due. A target that is new hears of no incident that is over."""
        over = is_new and 0 < incident.closed_unix_ms < self._began_ms
        return not over and incident.severity >= SEVERITIES[self._target.severity]

    async def _send(self) -> None:
        waiting, backoff = self._waiting, Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        while True:
            # Wait for something to send, and a moment longer for what belongs to it.
            self._note_position()
            if not waiting.incidents:
                waiting.news.clear()
                await waiting.news.wait()
                await asyncio.sleep(self._group_s)
                continue
            # The one that waits for longest comes first, in its newest state.
            incident = min(waiting.incidents.values(), key=lambda item: item.sequence)
            try:
                notice = notice_of(self._target, incident, self._unix_s())
                await post_notice(notice, self._post_s)
            except NoticeError as error:
                log.warning("notices: %s of %s: %s", incident.id, self._target.name, error)
                if not self._is_given_up(incident, error):
                    await asyncio.sleep(backoff.next_s())
                    continue
            backoff.reset()
            # A change that came meanwhile waits on.
            if waiting.incidents.get(incident.id) is incident:
                del waiting.incidents[incident.id]

    def _note_position(self) -> None:
        try:
            self._positions.move(self._target.name, self._waiting.delivered)
        except OSError as error:
            log.warning("notices: the position was not written: %s", error)

    def _is_given_up(self, incident: pb.Incident, error: NoticeError) -> bool:
        """Whether this notice is left out, because the receiver refuses it again and again."""
        refusals = self._waiting.refusals
        notice = f"{incident.id}-{incident.sequence}"
        refusals[notice] = refusals.get(notice, 0) + error.refused
        if refusals[notice] < REFUSALS_MAX:
            return False
        del refusals[notice]
        log.error("NOTICE LEFT OUT: %s refuses %s: %s", self._target.name, notice, error)
        return True


async def deliver_notices(
    targets: Sequence[NoticeTarget], registry: RegistryClient, file: Path
) -> None:
    """Deliver to all targets until cancelled. A fault of one of them ends no other.

    targets  with references replaced.
    file     where their positions are kept.
    """
    positions = Positions(file)

    async def deliver(target: NoticeTarget) -> None:
        while True:
            try:
                await TargetDelivery(target, registry, positions).run()
            except Exception:
                log.exception("notices: %s", target.name)
            await asyncio.sleep(BACKOFF_MAX_S)

    await asyncio.gather(*map(deliver, targets))
