"""The controller: listens to gateways and registry, judges, and acts. One acts at a time.

Everything it decides is decided in trial.py, from what it was told; here it only listens, keeps
what it was told in the registry before it says so, and carries decisions out.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping

from protos import window_pb2
from registry.client import RegistryClient
from registry.types import Deployment, FencedError, RegistryError
from rollout.checkpoint.store import Memory
from rollout.controller.findings import Findings
from rollout.controller.fleet import Fleet
from rollout.controller.isolate_errors import apart
from rollout.controller.recovery import look_around
from rollout.controller.traffic_rate import Meter
from rollout.errors import CheckpointError, NotLeadingError, SupersededError, UnknownRolloutError
from rollout.evidence.inbox import NS, by_model, source_name
from rollout.judge.judge import FleetView
from rollout.lifecycle.clock import Clock
from rollout.lifecycle.deploy import Terms, deployment_at, move, place_of
from rollout.lifecycle.rollout import Now, Trial
from rollout.policy.policy import Policy
from rollout.policy.stages import Place, Stage

log = logging.getLogger(__name__)

AFTER_MOVED_NS = 2 * NS
"""How long after the last worker obeyed a rollback a last bad answer is still waited for."""
MOVED_NS_MAX = 30 * NS
"""A worker that never obeys is the supervisor's to kill, not ours to wait for."""
RETRY_NS = NS // 2
"""Between two tries of a move that a gate or an unreachable registry stopped."""
REASON_CHARS_MAX = 1_000


class Controller:
    """All rollouts of one registry, while this process holds the lease.

    run.py drives it: `take_over`, then `act` whenever `wake` is set or a moment has passed, and
    `save` a few times a second.
    """

    def __init__(
        self, registry: RegistryClient, clock: Clock, policies: Mapping[str, Policy]
    ) -> None:
        self._registry = registry
        self._clock = clock
        self.policies = policies
        self.fleet = Fleet()
        self.meter = Meter()
        self.wake = asyncio.Event()
        """Something must be looked at now."""
        self.changed = asyncio.Event()
        """Replaced and set at each change of a status or of what has been kept."""
        self._trials: dict[str, Trial] = {}
        self._earlier: list[Trial] = []
        self._newest: dict[str, Deployment] = {}
        self._received: dict[str, int] = {}
        self.findings = Findings()
        self.unread: dict[str, str] = {}
        """Model -> why its newest rollout cannot be gone on with, and the way out."""
        self._finished: set[str] = set()
        self._retry_at_ns: dict[str, int] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._memory: Memory | None = None
        self._lease_token = 0
        self.fenced = False
        """Another controller has the lease; whoever runs this one makes it give up."""

    # Leading

    @property
    def leading(self) -> bool:
        """Whether this controller holds the lease and has taken over."""
        return self._memory is not None

    @property
    def lease_token(self) -> int:
        """What the registry must be shown with every write of the leading controller."""
        return self._lease_token

    async def take_over(self, lease_token: int) -> None:
        """Load every model's newest rollout and go on with those that have not ended."""
        memory = Memory(self._registry, lease_token, self.policies)
        await self.findings.read(self._registry)
        for found in await look_around(self._registry, memory, self._clock):
            held, trial = found.held, found.trial
            self._newest[held.model] = held
            if found.why_not:
                self.unread[held.model] = found.why_not
            if trial is None or (not trial.decisions and held.rollout_id == ""):
                continue  # never had one, or it died before its first deployment
            self._trials[held.model] = trial
            if trial.ended and self._is_collected(trial, self._clock.now()):
                self._finished.add(trial.terms.rollout_id)
        self._lease_token, self._memory = lease_token, memory
        self.wake.set()

    async def give_up(self) -> None:
        """Forget everything: what counts is in the registry, and another controller acts now."""
        self._memory = None
        busy = list(self._busy.values())
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        self.fenced = False
        for memory in (self._trials, self._newest, self._received, self._retry_at_ns, self.unread):
            memory.clear()
        self._earlier.clear()
        self._finished.clear()
        self.fleet.clear()
        self._tell()

    # What it is told

    def receive(self, batch: window_pb2.WindowBatch) -> None:
        """Take one batch of windows; raises NotLeadingError when another controller acts."""
        if not self.leading:
            raise NotLeadingError("this controller does not act now; send it again in a second")
        now = self._clock.now()
        source = batch.source
        self.fleet.hear((source.gateway, source.slot, source.boot_id), now.monotonic_ns)
        self.meter.take(batch)
        listening = self._listening()
        told = by_model(batch, {trial.terms.model for trial in listening})
        for trial in listening:
            with apart(trial, self._tell):
                if trial.receive(told[trial.terms.model], now):
                    self.wake.set()
        name = source_name(source)
        self._received[name] = max(self._received.get(name, 0), batch.sequence)

    def kept(self, source: str) -> int:
        """Return the sequence up to which everything from *source* is kept."""
        listening = self._listening()
        if self._memory is None:
            return 0
        if not listening:
            return self._received.get(source, 0)
        whole = [trial for trial in listening if not trial.broken]
        if not whole:
            return self._received.get(source, 0)
        return min(self._memory.kept(trial, source) for trial in whole)

    def see_deployment(self, held: Deployment) -> None:
        """Take a deployment as the newest; older ones are ignored."""
        before = self._newest.get(held.model)
        if before is None or held.revision > before.revision:
            self._newest[held.model] = held
            self.wake.set()

    def _listening(self) -> list[Trial]:
        return [
            trial for trial in self._trials.values() if trial.terms.rollout_id not in self._finished
        ]

    # What it does

    def act(self) -> None:
        """Close what is over, judge, and begin whatever follows, without waiting for it."""
        now = self._clock.now()
        for trial in self._listening():
            with apart(trial, self._tell):
                self._look(trial, now)

    def _look(self, trial: Trial, now: Now) -> None:
        if trial.close(now):
            self._tell()
        model = trial.terms.model
        if model in self._busy or now.monotonic_ns < self._retry_at_ns.get(model, 0):
            return
        newest = self._newest.get(model)
        if trial.ended:
            if self._is_collected(trial, now):
                self._begin(model, self._finish(trial))
        elif newest is not None and newest.revision > trial.revision:
            self._begin(model, self._reconcile(trial, newest))
        else:
            before = (trial.verdict, trial.reason)
            to = trial.judge(
                now,
                self._view(trial, now),
                self.findings.hold(trial.terms.model, trial.terms.version),
            )
            if before != (trial.verdict, trial.reason):
                self._tell()
            if to != trial.place:
                self._begin(model, self.go(trial, to, trial.reason))

    async def save(self) -> None:
        """Keep every rollout under way, then let the gateways forget what is kept."""
        if self._memory is not None:
            for trial in self._listening():
                with apart(trial, self._tell):
                    trial.inbox.forget_silent(self._clock.now().monotonic_ns)
                    if not trial.broken:
                        await self._memory.save(trial)
        self._tell()

    async def go(self, trial: Trial, to: Place, why: str) -> None:
        """Write what *to* means, and stand there; or learn why not, and look again soon.

        Raises FencedError when another controller has taken the lease.
        """
        now = self._clock.now()
        back = to.stage in (Stage.ROLLED_BACK, Stage.REFUSED)
        if back and not trial.times.verdict:
            trial.times.verdict = now.unix_ns
        try:
            written = await move(
                self._registry,
                trial.terms,
                at=trial.place,
                revision=trial.revision,
                to=to,
                why=f"{prefix(trial.terms)}{why}"[:REASON_CHARS_MAX],
                lease_token=self._lease_token,
            )
        except FencedError:
            raise
        except SupersededError as error:
            log.warning("rollout %s: %s", trial.terms.rollout_id, error)
            written = None
        except RegistryError as error:
            log.warning("rollout %s cannot move to %s: %s", trial.terms.rollout_id, to, error)
            trial.hold(f"cannot move to {to.stage.name}: {error}")
            self._retry_at_ns[trial.terms.model] = now.monotonic_ns + RETRY_NS
            self._tell()
            return
        if written is None:  # somebody was faster: read what they wrote, and judge anew
            held = await self._registry.deployment(trial.terms.model)
            self.see_deployment(held)
            if held.revision > trial.revision:
                await self._reconcile(trial, held)
            return
        self.see_deployment(written)
        await self._stand(trial, to, written.revision, why)

    async def _stand(self, trial: Trial, place: Place, revision: int, why: str) -> None:
        trial.enter(place, revision, self._clock.now(), why)
        log.info("rollout %s: %s at revision %d: %s", trial.terms.rollout_id, place, revision, why)
        self._tell()
        await self._remember(trial, as_newest=trial.ended)
        self.wake.set()

    async def _reconcile(self, trial: Trial, held: Deployment) -> None:
        """A revision we did not write, or wrote and died before remembering it."""
        place = place_of(held, trial.terms)
        if place == trial.place:
            reason = f"revision {held.revision} by {held.who}: {held.why}"
            trial.adopt(held.revision, self._clock.now(), reason)
            await self._remember(trial)
        elif place is not None:
            await self._stand(trial, place, held.revision, held.why)
        else:
            ours = held.why.startswith(prefix(trial.terms))
            answers = trial.terms.version in (held.production, held.canary)
            stage = Stage.DONE if answers else Stage.ROLLED_BACK
            if ours and stage == Stage.ROLLED_BACK and not trial.times.verdict:
                trial.times.verdict = held.at_unix_ns
            why = held.why.removeprefix(prefix(trial.terms))
            if not ours:
                why = f"superseded by {held.who}, revision {held.revision}: {held.why}"
            await self._stand(trial, Place(stage), held.revision, why)

    def _is_collected(self, trial: Trial, now: Now) -> bool:
        """Whether the four times of a rollback are complete, or nothing is to be waited for."""
        times = trial.times
        if trial.place.stage == Stage.DONE or not times.verdict:
            return True
        if not times.moved:
            times.moved = self.fleet.moved_unix_ns(trial.terms.model, trial.revision)
            if times.moved:
                self._tell()
        if times.moved:
            return now.unix_ns - max(times.moved, times.verdict) >= AFTER_MOVED_NS
        return now.unix_ns - times.verdict >= MOVED_NS_MAX

    async def _finish(self, trial: Trial) -> None:
        await self._remember(trial, as_newest=True)
        self._finished.add(trial.terms.rollout_id)
        self._tell()

    async def _remember(self, trial: Trial, *, as_newest: bool = False) -> None:
        if self._memory is not None:
            with apart(trial, self._tell):
                await self._memory.save(trial, as_newest=as_newest)
            self._tell()

    def _view(self, trial: Trial, now: Now) -> FleetView:
        silence_ns = int(trial.terms.policy.silence_s_max * NS)
        terms = trial.terms
        return self.fleet.view(terms.model, terms.version, silence_ns, now.monotonic_ns)

    # For those who steer and those who look (steering.py, service.py)

    def trial(self, model: str, rollout_id: str = "") -> Trial:
        """Return the newest rollout of *model*, or the one named; UnknownRolloutError."""
        if not self.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        newest = self._trials.get(model)
        if newest is not None and rollout_id in ("", newest.terms.rollout_id):
            return newest
        for trial in (*self._trials.values(), *self._earlier):
            if rollout_id and trial.terms.rollout_id == rollout_id:
                return trial
        if model in self.unread:
            raise CheckpointError(self.unread[model])
        named = f"rollout {rollout_id!r}" if rollout_id else f"a rollout of model {model!r}"
        raise UnknownRolloutError(
            f"this controller knows no {named}; `turnout rollout history` lists what it knows"
        )

    def trials(self, model: str = "") -> list[Trial]:
        """Return the rollouts known, newest first: since this controller began, and each newest."""
        if not self.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        known = [*self._trials.values(), *self._earlier]
        known = [trial for trial in known if model in ("", trial.terms.model)]
        return sorted(known, key=lambda trial: trial.started_unix_ms, reverse=True)

    def is_finished(self, trial: Trial) -> bool:
        """Whether nothing of it can change any more."""
        return trial.terms.rollout_id in self._finished

    async def begin(self, trial: Trial, held: Deployment, why: str) -> None:
        """Remember *trial*, write its preload over *held*, and listen for it from now on."""
        assert self._memory is not None
        await self._memory.save(trial, as_newest=True)
        place = Place(Stage.PRELOAD)
        written = await self._registry.deploy(
            deployment_at(place, held, trial.terms, f"{prefix(trial.terms)}{why}"),
            lease_token=self._lease_token,
            policy_digest=trial.terms.policy.digest,
        )
        now = self._clock.now()
        for source, sequence in self._received.items():
            trial.inbox.follow(source, sequence, now.monotonic_ns)
        before = self._trials.get(trial.terms.model)
        if before is not None:
            self._earlier.append(before)
        self._trials[trial.terms.model] = trial
        self._retry_at_ns.pop(trial.terms.model, None)
        self.unread.pop(trial.terms.model, None)
        self.see_deployment(written)
        await self._stand(trial, place, written.revision, why)

    async def alone(self, model: str, deed: Coroutine[None, None, None]) -> None:
        """Run *deed* while nothing else is done to the rollout of *model*."""
        while (busy := self._busy.get(model)) is not None:
            await asyncio.wait([busy])
        await self._begin(model, deed, watched=True)

    async def steered(self, trial: Trial) -> None:
        """Keep and show what a person changed."""
        await self._remember(trial)
        self.wake.set()

    def _begin(
        self, model: str, deed: Coroutine[None, None, None], *, watched: bool = False
    ) -> asyncio.Task[None]:
        task = asyncio.ensure_future(deed)
        self._busy[model] = task

        def done(ended: asyncio.Task[None]) -> None:
            self._busy.pop(model, None)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self.fenced = self.fenced or isinstance(error, FencedError)
                if not watched:
                    self._retry_at_ns[model] = self._clock.now().monotonic_ns + RETRY_NS
                    self._failed(model, error)
            self.wake.set()

        task.add_done_callback(done)
        return task

    def _failed(self, model: str, error: BaseException) -> None:
        """What the registry refused is tried again; what we ourselves raised holds the rollout."""
        trial = self._trials.get(model)
        if trial is None or isinstance(error, RegistryError):
            log.error("rollout of %r: %s", model, error, exc_info=error)
            return
        with apart(trial, self._tell):
            raise error

    def _tell(self) -> None:
        """Wake everybody who waits for `changed`."""
        self.changed.set()
        self.changed = asyncio.Event()


def prefix(terms: Terms) -> str:
    """How the reason of every deployment a rollout writes begins."""
    return f"rollout {terms.rollout_id}: "
