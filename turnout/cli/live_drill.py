"""A drill: a bad version goes into a running system on purpose, and is timed on its way out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from protos import registry_pb2, rollout_pb2
from registry.client import RegistryClient
from turnout.cli.rollout_client import RolloutClient
from turnout.errors import OperatorError
from turnout.views.cards import card_of, shift_digest
from turnout.views.rollout_view import FINAL_STAGE_VALUES

POLICY = "drill"
APPROVAL_S_MAX = 600.0
LATE_ANSWERS_S = 2.5
"""The controller takes note of late bad answers for 2 s after the traffic has moved."""
MOVED_S_MAX = 35.0
POLL_S = 0.5

ReportLine = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillResult:
    """What came of one drill. Times in ms since *counted_from*; None: did not happen.

    A wrong or slow answer is none that a gateway can tell from a right one. For such kinds the
    times count from the bad version's first share of the traffic.
    """

    kind: str
    version: str
    found: bool
    reason: str
    counted_from: str
    verdict_ms: float | None
    moved_ms: float | None
    last_bad_ms: float | None
    evidence_to_moved_ms: float | None
    """From the verdict until every worker had moved its traffic."""
    canary_calls: int
    fallen_back: int
    """Answered by production in the bad version's place."""
    failed: int
    """Calls that got no answer."""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DrillActors:
    """Who drills; tokens where the registry has an identities file."""

    actor: str
    """Registers and starts; may not approve."""
    approver: str = ""
    """Empty: wait until somebody else has approved it by hand."""
    token: str | None = field(default=None, repr=False)
    approver_token: str | None = field(default=None, repr=False)


async def run_drill(
    registry: str, actors: DrillActors, model: str, kind: str, seconds: float, report: ReportLine
) -> DrillResult:
    """Make a bad version of *model*'s production, roll it out under policy `drill`, and time it.

    seconds  the longest it stays in traffic; then it is aborted, and was not found.

    Raises OperatorError, registry.types.RegistryError, grpc.aio.AioRpcError.
    """
    actor, approver = actors.actor, actors.approver
    if approver == actor:
        raise OperatorError(
            f"{actor!r} registers the bad version and may not approve it as well: name somebody "
            "else with --approver, or leave it out and let them approve by hand"
        )
    async with (
        RegistryClient(registry, actor, actors.token) as client,
        RolloutClient(registry, actor, actors.token) as rollouts,
    ):
        version = await _register(client, model, kind)
        report(f"version {version.label} is bad ({kind}); registered by {actor}")
        try:
            policies = await rollouts.policies()
            if approver:
                await _approve(registry, actors, version, policies[POLICY].digest)
            else:
                report(
                    "waiting for somebody else: turnout versions approve "
                    f"{model} {version.label} --policy {POLICY}"
                )
            await _wait_for_approval(client, version)
            last, began_unix_ns = await _follow_rollout(rollouts, version, kind, seconds, report)
        finally:
            await _archive(client, version)
    return _drill_result(kind, version, last, began_unix_ns)


async def _register(client: RegistryClient, model: str, kind: str) -> registry_pb2.Version:
    from training.drills import from_production

    held = await client.deployment(model)
    if not held.production:
        raise OperatorError(f"model {model!r} has no production version to make a bad one from")
    production = await client.get_version(model, held.production)
    files = await client.fetch(model, held.production)
    made = await asyncio.to_thread(from_production.make_bad_version, kind, files, production.digest)
    return await client.register(model, made.files)


async def _approve(
    registry: str, players: DrillActors, version: registry_pb2.Version, policy_digest: str
) -> None:
    async with RegistryClient(registry, players.approver, players.approver_token) as client:
        await client.approve(
            version.model,
            version.label,
            POLICY,
            policy_digest,
            shift_digest(card_of(version)),
            "a drill: it is bad on purpose",
        )


async def _wait_for_approval(client: RegistryClient, version: registry_pb2.Version) -> None:
    give_up = asyncio.get_running_loop().time() + APPROVAL_S_MAX
    while not any(
        one.policy_name == POLICY and not one.rejected
        for one in await client.approvals(version.model, version.label)
    ):
        if asyncio.get_running_loop().time() > give_up:
            raise OperatorError(f"nobody approved the drill within {APPROVAL_S_MAX:g} s")
        await asyncio.sleep(POLL_S)


async def _follow_rollout(
    rollouts: RolloutClient,
    version: registry_pb2.Version,
    kind: str,
    seconds: float,
    report: ReportLine,
) -> tuple[rollout_pb2.RolloutStatus, int]:
    """Start, follow to the end, and wait for the four times; also when it got its first share."""
    model = version.model
    last = await rollouts.start(model, version.label, POLICY, f"a drill: {kind}")
    rollout_id, stage, began_unix_ns = last.rollout_id, "", 0
    try:
        async with asyncio.timeout(seconds), _statuses(rollouts, model, rollout_id) as statuses:
            async for last in statuses:
                if (now := rollout_pb2.Stage.Name(last.stage)) != stage:
                    stage = now
                    report(f"{now}: {last.reason}")
                if last.stage == rollout_pb2.CANARY_STAGE:
                    began_unix_ns = last.stage_since_unix_ms * 1_000_000
                if last.stage in FINAL_STAGE_VALUES:
                    break
    except TimeoutError:
        report(f"not found within {seconds:g} s; aborted")
        await rollouts.send_command("Abort", model, f"drill over: not found within {seconds:g} s")
    give_up = asyncio.get_running_loop().time() + MOVED_S_MAX
    while not (last := await rollouts.status(model)).times.moved_unix_ns:
        if asyncio.get_running_loop().time() > give_up:
            return last, began_unix_ns
        await asyncio.sleep(0.1)
    await asyncio.sleep(LATE_ANSWERS_S)
    return await rollouts.status(model), began_unix_ns


@asynccontextmanager
async def _statuses(
    rollouts: RolloutClient, model: str, rollout_id: str
) -> AsyncIterator[AsyncIterator[rollout_pb2.RolloutStatus]]:
    async with aclosing(rollouts.watch(model, rollout_id)) as statuses:
        yield statuses


async def _archive(client: RegistryClient, version: registry_pb2.Version) -> None:
    """Leave nothing behind that could be rolled out by mistake."""
    held = await client.deployment(version.model)
    if version.label not in held.versions:
        await client.set_status(
            version.model, version.label, registry_pb2.ARCHIVED, "the drill is over"
        )


def _drill_result(
    kind: str, version: registry_pb2.Version, last: rollout_pb2.RolloutStatus, began_unix_ns: int
) -> DrillResult:
    times, calls = last.times, last.calls
    first = times.first_bad_unix_ns or began_unix_ns

    def since(unix_ns: int, begin: int = first) -> float | None:
        return round((unix_ns - begin) / 1e6, 1) if unix_ns and begin else None

    aborted = last.reason.startswith("aborted by")
    return DrillResult(
        kind=kind,
        version=version.label,
        found=last.stage in (rollout_pb2.ROLLED_BACK, rollout_pb2.REFUSED_STAGE) and not aborted,
        reason=last.reason,
        counted_from="first bad answer" if times.first_bad_unix_ns else "its first share",
        verdict_ms=since(times.verdict_unix_ns),
        moved_ms=since(times.moved_unix_ns),
        last_bad_ms=since(times.last_bad_unix_ns),
        evidence_to_moved_ms=since(times.moved_unix_ns, times.verdict_unix_ns),
        canary_calls=calls.canary,
        fallen_back=calls.fallbacks,
        failed=calls.failed,
    )
