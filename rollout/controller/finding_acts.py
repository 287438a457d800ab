"""Acts on findings: rolls back by findings of kind "rollback", and writes what findings led to.

A finding of kind "rollback" names a version. If a rollout of this version is under way, the rollout
is rolled back. If the version is production without a rollout, production goes back to the standby
or to the newest earlier version that was production, as `turnout rollout undo` does. The registry's
gates decide which versions those are, and let findings move a model's production once a day.

What a finding led to is a finding of kind "acted", so that the history has the times: a rollout was
held, traffic moved, or nothing was done and why. A finding without one is acted on again by the
next leading controller, for an hour.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from features.canonical import canonical_json
from protos import registry_pb2
from registry.client import RegistryClient
from registry.types import Deployment, GateError, RegistryError
from rollout.controller.controller import Controller
from rollout.controller.findings import ACTED
from rollout.controller.undo import deploy_earlier_version
from rollout.errors import CheckpointError, RolloutRefusedError, UnknownRolloutError
from rollout.lifecycle.clock import ControllerClock
from rollout.lifecycle.rollout import Rollout
from rollout.policy.stages import Stage, StagePosition, Verdict

log = logging.getLogger(__name__)

POLL_S = 0.05
"""Time between two looks while something is awaited."""
RETRY_S = 1.0
MOVED_WAIT_S = 30.0
"""How long the workers may take to apply a deployment; the supervisor ends one that never does."""
TARGETS_MAX = 5
"""Earlier versions that are tried. The gates refuse those that were never production."""
REASON_CHARS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class _Moved:
    """The deployment that a rollback wrote."""

    revision: int
    to_version: str
    rollout_id: str = ""


class FindingActs:
    """Acts on the findings of a leading controller. Make one for each time that it leads."""

    def __init__(
        self, controller: Controller, registry: RegistryClient, clock: ControllerClock
    ) -> None:
        self._controller = controller
        self._registry = registry
        self._clock = clock
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """Sequence of a finding -> the task that acts on it."""

    async def run(self) -> None:
        """Act until cancelled. An error is logged, and the finding is acted on again."""
        news = self._controller.findings.news
        try:
            while True:
                busy = self.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S if busy else None):
                        await news.wait()
                news.clear()
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> bool:
        """Start what is to be done now; return whether something is still awaited."""
        findings = self._controller.findings
        now_ms = self._clock.now().unix_ns // 1_000_000
        # Rollbacks, each in a task: a version that loads slowly delays no other model.
        rollbacks = findings.open_rollbacks(now_ms)
        for finding in rollbacks:
            if finding.sequence not in self._tasks:
                self._start(finding, self._roll_back(finding))
        # Holds that took effect, which are written down.
        waiting = False
        for rollout in self._controller.rollouts():
            spec = rollout.spec
            if rollout.ended:
                continue
            for finding in findings.open_holds(spec.model, spec.version, spec.rollout_id):
                waiting = True
                is_held = rollout.verdict == Verdict.HOLD and finding.text in rollout.reason
                if is_held and finding.sequence not in self._tasks:
                    self._start(finding, self._record_hold(finding, rollout, now_ms))
        return bool(rollbacks) or waiting

    def _start(self, finding: registry_pb2.Finding, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[finding.sequence] = asyncio.ensure_future(self._guarded(finding, work))

    async def _guarded(
        self, finding: registry_pb2.Finding, work: Coroutine[Any, Any, None]
    ) -> None:
        """Do *work*. After an error wait, so that it is tried again a little later."""
        try:
            await work
        except (RegistryError, RolloutRefusedError) as error:
            log.warning("finding %d of %r: %s", finding.sequence, finding.model, error)
            await asyncio.sleep(RETRY_S)
        except Exception:
            log.exception("finding %d of %r", finding.sequence, finding.model)
            await asyncio.sleep(RETRY_S)
        finally:
            self._tasks.pop(finding.sequence, None)
            self._controller.findings.news.set()

    async def _record_hold(
        self, finding: registry_pb2.Finding, rollout: Rollout, held_ms: int
    ) -> None:
        await self._write_acted(
            finding, "hold", {"rollout": rollout.spec.rollout_id, "acted_unix_ms": held_ms}
        )

    async def _roll_back(self, finding: registry_pb2.Finding) -> None:
        """Take the finding's version out of service, and write down when traffic had moved."""
        try:
            moved = await self._move(finding)
        except GateError as error:
            # A gate that is not met now is not met in a second: a person decides.
            await self._write_acted(finding, "none", {"why": str(error)[:REASON_CHARS_MAX]})
            return
        moved_ns = await self._wait_moved(finding.model, moved.revision)
        await self._write_acted(
            finding,
            "rollback",
            {
                "revision": moved.revision,
                "to": moved.to_version,
                "rollout": moved.rollout_id,
                "acted_unix_ms": min(moved_ns, self._clock.now().unix_ns) // 1_000_000,
            },
        )

    async def _wait_moved(self, model: str, revision: int) -> int:
        """Return when the last worker applied a revision, Unix ns; 0 if one has not in time."""
        for _ in range(int(MOVED_WAIT_S / POLL_S)):
            moved_ns = self._controller.fleet.moved_unix_ns(model, revision)
            if moved_ns:
                return moved_ns
            await asyncio.sleep(POLL_S)
        return 0

    async def _move(self, finding: registry_pb2.Finding) -> _Moved:
        """Write the deployment without the finding's version.

        Raises GateError when nothing may be moved, RegistryError and RolloutRefusedError when it
        could not be moved now.
        """
        model, version = finding.model, finding.version
        by = f"finding {finding.sequence} by {finding.who}"
        why = f"{by}: {finding.text}"[:REASON_CHARS_MAX]
        # A rollout of this version goes back to its baseline.
        rollout = self._active_rollout(model)
        if rollout is not None and rollout.spec.version == version:
            rollout.verdict = Verdict.FAULTY
            target = StagePosition(Stage.ROLLED_BACK)
            work = self._controller.move_to(rollout, target, why)
            await self._controller.run_exclusively(model, work)
            if not rollout.ended:
                raise RolloutRefusedError(f"nothing was moved: {rollout.reason}")
            return _Moved(rollout.revision, rollout.spec.baseline, rollout.spec.rollout_id)
        # A rollout of another version may be the cure, so it is a person's to end.
        if rollout is not None:
            raise GateError(
                f"rollout {rollout.spec.rollout_id} of version {rollout.spec.version} is under "
                f"way; end it (turnout rollout abort {model}), or let it replace {version}"
            )
        current = replace(await self._registry.deployment(model), rollout_id="")
        if current.production != version:
            raise GateError(
                f"version {version} is not production of {model!r} any more, and no rollout has it"
            )
        return await self._go_back(current, finding.sequence, why)

    async def _go_back(self, current: Deployment, sequence: int, why: str) -> _Moved:
        """Make the newest earlier version production that the gates let come back."""
        refusal: GateError | None = None
        for target in await self._targets(current):
            try:
                await self._controller.run_exclusively(
                    current.model, self._deploy(current, target, sequence, why)
                )
            except GateError as error:
                refusal = refusal or error
                continue
            written = await self._registry.deployment(current.model)
            return _Moved(written.revision, target)
        raise refusal or GateError(
            f"no version of {current.model!r} before {current.production} was production"
        )

    async def _deploy(self, current: Deployment, target: str, sequence: int, why: str) -> None:
        clock, fleet = self._clock, self._controller.fleet
        written = await deploy_earlier_version(
            self._registry,
            current,
            target,
            why,
            fleet_view=lambda: fleet.view(
                current.model, target, math.inf, clock.now().monotonic_ns
            ),
            lease_token=self._controller.lease_token,
            finding=sequence,
        )
        self._controller.see_deployment(written)

    async def _targets(self, current: Deployment) -> list[str]:
        """Return the versions to go back to: the standby, then older ones, the newest first."""
        versions = await self._registry.list_versions(current.model)
        older = [
            version.label
            for version in versions
            if int(version.label) < int(current.production)
            and version.status == registry_pb2.ARCHIVED
        ]
        standby = [current.standby] if current.standby else []
        return list(dict.fromkeys([*standby, *sorted(older, key=int, reverse=True)]))[:TARGETS_MAX]

    def _active_rollout(self, model: str) -> Rollout | None:
        """Return the model's rollout that has not ended. Raises GateError for an unreadable one."""
        try:
            rollout = self._controller.rollout(model)
        except UnknownRolloutError:
            return None
        except CheckpointError as error:
            raise GateError(str(error)) from error
        return None if rollout.ended else rollout

    async def _write_acted(
        self, finding: registry_pb2.Finding, act: str, details: Mapping[str, object]
    ) -> None:
        value = {
            "finding": finding.sequence,
            "act": act,
            "finding_unix_ms": finding.at_unix_ms,
            **details,
        }
        written = await self._registry.write_finding(
            registry_pb2.Finding(
                model=finding.model,
                version=finding.version,
                kind=ACTED,
                text=canonical_json(value).decode(),
                lease_token=self._controller.lease_token,
            )
        )
        self._controller.findings.add_finding(written)
