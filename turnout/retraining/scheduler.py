"""Asks the registry for the runs that are due by cron or by a finding, while the controller leads.

The registry decides whether a due run is queued or skipped, and that once for each key. So a
scheduler may ask twice, and two of them may ask at once. After an outage only the newest due time
of a schedule is asked for, and only the newest finding: one run makes up for all that were missed.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.schedules.schedule import Schedule, ScheduleError, parse_schedule
from registry.types import RegistryError

log = logging.getLogger(__name__)

CAUSE_CHARS_MAX = 128
"""The registry takes no longer name (docs/limits.md)."""
POLL_S = 5.0
"""Time between two looks. Cron counts minutes."""


class Scheduler:
    """Looks for due runs. Make one for each time that the controller leads.

    lease_token  the leading controller's.
    now_ms       clock for cron, Unix milliseconds.
    """

    def __init__(
        self, registry: RegistryClient, lease_token: int, now_ms: Callable[[], int]
    ) -> None:
        self._registry = registry
        self._lease_token = lease_token
        self._now_ms = now_ms
        self._answered: set[str] = set()
        """Keys of runs that the registry has."""
        self._sequence = 0
        self._newest_findings: dict[tuple[str, str], pb.Finding] = {}
        """(model, kind) -> its newest finding."""

    async def run(self) -> None:
        """Look every POLL_S until cancelled. What goes wrong is logged: rollouts must go on."""
        while True:
            try:
                await self.look()
            except RegistryError as error:
                log.warning("schedules: not looked at: %s", error)
            except Exception:
                log.exception("schedules: not looked at")
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Ask for every run that is due now. Raises RegistryError."""
        applied = await self._registry.list_schedules()
        if not applied:
            return
        async for finding in self._registry.findings(self._sequence):
            self._sequence = finding.sequence
            self._newest_findings[finding.model, finding.kind] = finding
        for item in applied:
            try:
                schedule = parse_schedule(item.name, json.loads(item.definition_json))
            except ScheduleError as error:
                # A newer release may know more than this one.
                log.warning("schedules: %s/%s: %s", item.project, item.name, error)
                continue
            for request in self._due(item, schedule):
                await self._ask(request)

    def _due(self, item: pb.AppliedSchedule, schedule: Schedule) -> list[pb.QueueRunRequest]:
        """Return what a schedule asks for now: its newest due time, and the newest finding."""
        # By cron. What was due before the schedule was applied is not made up for.
        requests = []
        now_ms = self._now_ms()
        due = schedule.due_before(datetime.fromtimestamp(now_ms / 1_000, UTC))
        if due is not None and due.timestamp() * 1_000 > item.since_unix_ms:
            requests.append(
                request_of(
                    item,
                    schedule,
                    trigger=f"{due:%Y-%m-%dT%H:%MZ}",
                    cause=f"schedule {item.name}, due {due:%Y-%m-%d %H:%M} UTC",
                    due_ms=int(due.timestamp() * 1_000),
                    lease_token=self._lease_token,
                )
            )
        # By the newest finding, which makes up for those before it.
        findings = [
            finding
            for (model, kind), finding in self._newest_findings.items()
            if model == schedule.model
            and schedule.wants(kind)
            and finding.at_unix_ms > item.since_unix_ms
        ]
        if findings:
            newest = max(findings, key=lambda finding: finding.sequence)
            requests.append(
                request_of(
                    item,
                    schedule,
                    trigger=f"finding-{newest.sequence}",
                    cause=f"schedule {item.name}, finding {newest.sequence} ({newest.kind})",
                    due_ms=newest.at_unix_ms,
                    lease_token=self._lease_token,
                )
            )
        return requests

    async def _ask(self, request: pb.QueueRunRequest) -> None:
        if request.key in self._answered:
            return
        reply = await self._registry.queue_run(request)
        self._answered.add(request.key)
        if reply.begun:
            log.info(
                "schedules: %s: %s %s",
                request.cause,
                pb.Run.State.Name(reply.run.state).lower(),
                reply.run.error,
            )


def request_of(
    item: pb.AppliedSchedule,
    schedule: Schedule,
    *,
    trigger: str,
    cause: str,
    due_ms: int,
    lease_token: int = 0,
) -> pb.QueueRunRequest:
    """Return the request for the run of a schedule that one trigger makes due.

    trigger  tells this due time, finding or state of the data from all others; at most 28
             characters.
    """
    named = f"{item.project}/{item.name}"
    return pb.QueueRunRequest(
        model=schedule.model,
        setting=schedule.setting,
        key=f"{named}@{trigger}",
        cause=cause[:CAUSE_CHARS_MAX],
        schedule=named,
        due_unix_ms=due_ms,
        lease_token=lease_token,
    )
