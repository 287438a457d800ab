"""A drill: a bad version is rolled out on purpose, and its rollback is timed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from protos import registry_pb2, rollout_pb2
from registry.client import RegistryClient
from registry.types import same_person, standing_approvals
from turnout.cli.rollout_client import RolloutClient
from turnout.errors import OperatorError
from turnout.views.cards import card_of, shift_digest
from turnout.views.rollout_view import FINAL_STAGE_VALUES

POLICY = "drill"
APPROVAL_S_MAX = 600.0
LATE_ANSWERS_S = 2.5
"""The controller counts late bad answers for 2 s after the traffic has moved."""
MOVED_S_MAX = 35.0
"""The longest wait between the end of the rollout and the move of its traffic."""
POLL_S = 0.5

ReportLine = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillResult:
    """The result of one drill. Times are in ms since *counted_from*; None: it did not happen.

    A gateway recognises an error or a NaN as a bad answer, and times count from the first one. It
    cannot recognise a wrong or a slow answer. For such kinds, times count from the moment at which
    the bad version got its first share of the traffic.
    """

    kind: str
    version: str
    found: bool
    """The controller rolled the version back by itself."""
    reason: str
    counted_from: str
    verdict_ms: float | None
    moved_ms: float | None
    last_bad_ms: float | None
    evidence_to_moved_ms: float | None
    """From the verdict until every worker had moved its traffic, in ms."""
    canary_calls: int
    fallbacks: int
    """Calls that the bad version failed and production answered."""
    failed: int
    """Calls that ended with an error for the caller."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DrillActors:
    """The two people of a drill. A registry with an identities file asks for their tokens."""

    actor: str
    """Registers the bad version and starts its rollout; may not approve it."""
    approver: str = ""
    """Approves the bad version. Empty: the drill waits until it is approved by hand."""
    token: str | None = field(default=None, repr=False)
    approver_token: str | None = field(default=None, repr=False)


async def run_drill(
    registry: str,
    certificate: Path | None,
    actors: DrillActors,
    model: str,
    kind: str,
    seconds: float,
    report: ReportLine,
) -> DrillResult:
    """Make a bad version of *model*'s production, roll it out under policy `drill`, and time it.

    certificate  file of the certificate of registry and controller; None: plain text.
    kind     how the version is bad; docs/drills.md lists the kinds.
    seconds  the longest time of the rollout. After that it is aborted and counts as not found.
    report   gets a line of text at each stage.

    Raises OperatorError, registry.types.RegistryError, grpc.aio.AioRpcError.
    """
    # Four eyes: the registry would refuse this too, but only after the version is registered.
    actor, approver = actors.actor, actors.approver
    if same_person(approver, actor):
        raise OperatorError(
            f"{actor!r} registers the bad version and may not approve it as well: name another "
            "person with --approver, or leave it out and have the version approved by hand"
        )
    # One client registers and archives the version, the other one follows its rollout.
    async with (
        RegistryClient(registry, actor, actors.token, certificate=certificate) as client,
        RolloutClient(registry, actor, actors.token, certificate=certificate) as rollouts,
    ):
        # The bad version must not stay usable, even if a later step fails.
        version = await _register(client, model, kind)
        report(f"version {version.label} is bad ({kind}); registered by {actor}")
        try:
            policies = await rollouts.policies()
            if approver:
                await _approve(registry, certificate, actors, version, policies[POLICY].digest)
            else:
                report(
                    "waiting for an approval by another person: turnout versions approve "
                    f"{model} {version.label} --policy {POLICY}"
                )
            await _wait_for_approval(client, version)
            status, began_unix_ns = await _follow_rollout(rollouts, version, kind, seconds, report)
        finally:
            await _archive(client, version)
    return _drill_result(kind, version, status, began_unix_ns)


async def _register(client: RegistryClient, model: str, kind: str) -> registry_pb2.Version:
    from training.drills import from_production

    label = (await client.deployment(model)).production
    if not label:
        raise OperatorError(f"model {model!r} has no production version to make a bad one from")
    production = await client.get_version(model, label)
    files = await client.fetch(model, label)
    bad = await asyncio.to_thread(from_production.make_bad_version, kind, files, production.digest)
    return await client.register(model, bad.files)


async def _approve(
    registry: str,
    certificate: Path | None,
    actors: DrillActors,
    version: registry_pb2.Version,
    policy_digest: str,
) -> None:
    async with RegistryClient(
        registry, actors.approver, actors.approver_token, certificate=certificate
    ) as client:
        await client.approve(
            version.model,
            version.label,
            POLICY,
            policy_digest,
            shift_digest(card_of(version)),
            "a drill: the version is bad on purpose",
        )


async def _wait_for_approval(client: RegistryClient, version: registry_pb2.Version) -> None:
    give_up = asyncio.get_running_loop().time() + APPROVAL_S_MAX
    while not any(
        approval.policy_name == POLICY
        for approval in standing_approvals(await client.approvals(version.model, version.label))
    ):
        if asyncio.get_running_loop().time() > give_up:
            raise OperatorError(f"the drill was not approved within {APPROVAL_S_MAX:g} s")
        await asyncio.sleep(POLL_S)


async def _follow_rollout(
    rollouts: RolloutClient,
    version: registry_pb2.Version,
    kind: str,
    seconds: float,
    report: ReportLine,
) -> tuple[rollout_pb2.RolloutStatus, int]:
    """Start the rollout and follow it until its traffic has moved back.

    Returns the last status, and when the version got its first share (Unix ns; 0: never).
    """
    model = version.model
    status = await rollouts.start(model, version.label, POLICY, f"a drill: {kind}")
    rollout_id, stage, began_unix_ns = status.rollout_id, "", 0
    # Follow the rollout until it ends by itself; when the time is up, abort it.
    try:
        async with asyncio.timeout(seconds), _statuses(rollouts, model, rollout_id) as statuses:
            async for status in statuses:
                if (now := rollout_pb2.Stage.Name(status.stage)) != stage:
                    stage = now
                    report(f"{now}: {status.reason}")
                if status.stage == rollout_pb2.CANARY_STAGE:
                    began_unix_ns = status.stage_since_unix_ms * 1_000_000
                if status.stage in FINAL_STAGE_VALUES:
                    break
    except TimeoutError:
        report(f"not found within {seconds:g} s; aborted")
        await rollouts.send_command(
            "Abort", model, f"the drill is over: not found within {seconds:g} s"
        )
    # The traffic moves some time after the verdict, and late bad answers come after that.
    give_up = asyncio.get_running_loop().time() + MOVED_S_MAX
    while not (status := await rollouts.status(model)).times.moved_unix_ns:
        if asyncio.get_running_loop().time() > give_up:
            return status, began_unix_ns
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
    """Archive the bad version, so that it cannot be rolled out by mistake."""
    deployment = await client.deployment(version.model)
    if version.label not in deployment.versions:
        await client.set_status(
            version.model, version.label, registry_pb2.ARCHIVED, "the drill is over"
        )


def _drill_result(
    kind: str, version: registry_pb2.Version, status: rollout_pb2.RolloutStatus, began_unix_ns: int
) -> DrillResult:
    times, calls = status.times, status.calls
    first = times.first_bad_unix_ns or began_unix_ns

    def since(unix_ns: int, begin: int = first) -> float | None:
        return round((unix_ns - begin) / 1e6, 1) if unix_ns and begin else None

    aborted = status.reason.startswith("aborted by")
    return DrillResult(
        kind=kind,
        version=version.label,
        found=status.stage in (rollout_pb2.ROLLED_BACK, rollout_pb2.REFUSED_STAGE) and not aborted,
        reason=status.reason,
        counted_from="first bad answer" if times.first_bad_unix_ns else "its first share",
        verdict_ms=since(times.verdict_unix_ns),
        moved_ms=since(times.moved_unix_ns),
        last_bad_ms=since(times.last_bad_unix_ns),
        evidence_to_moved_ms=since(times.moved_unix_ns, times.verdict_unix_ns),
        canary_calls=calls.canary,
        fallbacks=calls.fallbacks,
        failed=calls.failed,
    )
