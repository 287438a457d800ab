"""Makes the looks by the clock: days when they are over, shares and silence every five minutes.

Looks run in a thread of their own, so that readers of journals can push meanwhile. The registry is
asked before: for policies, accepted references, and the files of versions that were in service.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from host.clock import DAY_S
from monitoring.cells.outside_rows import is_outside_version
from monitoring.decisions.day_rows import DayRows
from monitoring.errors import MonitoringStoreError
from monitoring.incidents.incident_opener import IncidentOpener
from monitoring.incidents.other_changes import OtherChanges
from monitoring.jobs.look import LOOK_S
from monitoring.looks.day_looks import DayLook, SealedFacts, facts_of_files
from monitoring.looks.uplift_look import uplift_finding
from monitoring.store.look_store import AcceptedReference, LookOutcome, LookStore
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.watch.day_runner import DayRunner, KnownVersions, Version
from monitoring.watch.holdouts import HoldoutHistory
from monitoring.watch.minute_counts import MinuteCounts
from monitoring.watch.minute_look import MinuteLook
from protos import registry_pb2
from registry.client import RegistryClient
from registry.types import NotFoundError, RegistryError, VersionRefusedError
from registry.watching.applied_policies import AppliedPolicies

log = logging.getLogger(__name__)

Result = TypeVar("Result")

UPLIFT_FINDING = "uplift-finding"
"""Name of the look whose position is the day of the uplift that the history has."""
UPLIFT_DAYS = 400
"""An older uplift is not written."""
REFERENCE_FINDING = "reference"
"""Kind of the findings with which a person accepts days as a reference."""
DAY_CHECK_S = 20.0
"""Time between two looks at the clock for days that are over."""
MINUTE_LAG_S = 20.0
"""Windows and batches of the last minute arrive within it."""


class ModelWatcher:
    """Watches the versions in service.

    registry   an open client, whose caller may open incidents.
    day_looks  the kinds of look at a day.
    """

    def __init__(
        self,
        registry: RegistryClient,
        store: MonitoringStore,
        looks: LookStore,
        rows: DayRows,
        day_looks: Sequence[DayLook],
        counts: MinuteCounts,
        changes: OtherChanges,
        policies: AppliedPolicies,
        holdouts: HoldoutHistory,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._looks = looks
        self._counts = counts
        self._changes = changes
        self._now_s = now_s
        self._runner = DayRunner(store, looks, rows, day_looks, now_s)
        self._minutes = MinuteLook(store, looks)
        self._opener = IncidentOpener(looks, registry, changes.since)
        self._policies = policies
        self._holdouts = holdouts
        self._seq = 0
        self._facts: dict[Version, SealedFacts] = {}
        self._finding = 0
        self._thread = ThreadPoolExecutor(1, "monitoring-looks")
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to watch, once the registry can be called."""
        self._tasks = [
            asyncio.ensure_future(self._every(self._until_next_day_check, self.look_at_days)),
            asyncio.ensure_future(self._every(self._until_next_slot, self.look_at_minutes)),
        ]

    async def stop(self) -> None:
        """End. A look that is under way is not stored, and is made again after the next start."""
        for task in self._tasks:
            task.cancel()
        self._runner.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def look_at_days(self) -> int:
        """Look at all days that are over and were not looked at; return how many."""
        await self._refresh()
        days = 0
        while (day := await self._in_thread(self._runner.due_day)) is not None:
            policies = self._policies.policies
            served = await self._in_thread(partial(self._runner.versions_of, day, policies))
            known = await self._known([(item.model, item.version) for item in served])
            if not await self._in_thread(partial(self._runner.look_at, day, served, known)):
                break
            days += 1
            await self._report()
        await self._report()
        if days:
            await self._write_uplift()
        return days

    async def look_at_minutes(self) -> None:
        """Look at what arrived since the last look."""
        unix_s = int(self._now_s()) // LOOK_S * LOOK_S
        shares, production = self._counts.take_shares(), self._counts.production
        served = {(model, label) for model, label, _ in shares} | set(production.items())
        known = await self._known(sorted(served))
        await self._in_thread(partial(self._minutes.look_at_shares, shares, known, unix_s))
        await self._in_thread(partial(self._minutes.look_at_silence, production, known, unix_s))
        await self._report()

    async def _report(self) -> None:
        """Open incidents for the alarms that wait."""
        if await self._in_thread(self._looks.unreported_alarms):
            await self._read_history()
            await self._opener.report()

    async def _read_history(self) -> None:
        """Read what is new in the history."""
        async for entries, _ in self._registry.read_history(self._seq):
            for entry in entries:
                self._seq = max(self._seq, entry.seq)
                self._changes.note_entry(entry)
                self._holdouts.note_entry(entry)

    async def _write_uplift(self) -> None:
        """Write the newest uplift of each model into the history, where the report reads it.

        A kill between both writes repeats a finding, which changes no figure.
        """
        day = int(self._now_s()) // DAY_S
        found = await self._in_thread(
            partial(self._looks.read_figures, day - UPLIFT_DAYS, day, kind="uplift")
        )
        # The report shows one version of a model: that which most customers were scored by.
        found = [item for item in found if item.segment == ""]
        for model in sorted({item.model for item in found}):
            newest = max(
                (item for item in found if item.model == model),
                key=lambda item: (item.last_day, item.figure.n),
            )
            read = partial(self._looks.look_state, model, "", UPLIFT_FINDING)
            written = (await self._in_thread(read)).position
            period = newest.model, newest.version, newest.last_day
            finding = uplift_finding(
                item for item in found if (item.model, item.version, item.last_day) == period
            )
            # The position says that the history has it.
            if finding is not None and newest.last_day > written:
                await self._registry.write_finding(finding)
                position = newest.last_day
                save = partial(self._looks.save_look, model, "", UPLIFT_FINDING, position)
                await self._in_thread(partial(save, LookOutcome()))

    async def _refresh(self) -> None:
        """Read policies and accepted references that are new."""
        await self._policies.refresh(self._registry)
        await self._read_history()
        async for finding in self._registry.findings(self._finding):
            self._finding = max(self._finding, finding.sequence)
            accepted = accepted_reference(finding)
            if accepted is not None:
                await self._in_thread(partial(self._looks.accept_reference, accepted))

    async def _known(self, versions: Iterable[Version]) -> KnownVersions:
        """Return what the registry says of versions. Each is read once."""
        for model, label in versions:
            # A version that another system serves has no files here.
            if (model, label) not in self._facts and not is_outside_version(label):
                try:
                    found = await self._registry.get_version(model, label)
                    files = await self._registry.fetch(model, label)
                    self._facts[model, label] = await asyncio.to_thread(
                        facts_of_files, found.label, found.digest, files
                    )
                except (NotFoundError, VersionRefusedError) as error:
                    log.warning("%s %s is not looked at: %s", model, label, error)
        return KnownVersions(self._facts, self._policies.policies)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _every(
        self, pause_s: Callable[[], float], work: Callable[[], Awaitable[object]]
    ) -> None:
        """Do *work* again and again. What the database or the registry refuses is tried again."""
        failing = False
        while True:
            await asyncio.sleep(pause_s())
            try:
                await work()
                failing = False
            except (MonitoringStoreError, RegistryError) as error:
                if not failing:
                    log.warning("looks wait: %s", error)
                failing = True
            except Exception:
                log.exception("a look ended with an error; it is made again")

    def _until_next_day_check(self) -> float:
        return DAY_CHECK_S

    def _until_next_slot(self) -> float:
        """Return the seconds until the end of the five minutes under way, and a little more."""
        now = self._now_s()
        return (now // LOOK_S + 1) * LOOK_S + MINUTE_LAG_S - now


def accepted_reference(finding: registry_pb2.Finding) -> AcceptedReference | None:
    """Return the reference that a finding accepts; None: it is about something else."""
    if finding.kind != REFERENCE_FINDING:
        return None
    try:
        content = json.loads(finding.text)
        first, last = int(content["first_day"]), int(content["last_day"])
    except (ValueError, KeyError, TypeError):
        log.warning("finding %d names no days; nothing is accepted", finding.sequence)
        return None
    return AcceptedReference(finding.model, finding.version, finding.sequence, first, last)
