"""Test doubles for rollout: a clock, windows of gateways, and a registry that can fail."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

from protos import registry_pb2, window_pb2
from registry.types import (
    Deployment,
    FencedError,
    NotFoundError,
    ProjectRevision,
    RegistryUnavailableError,
    RevisionConflictError,
)
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import CanaryStep, GoodOutcome, Policy, ShadowStage
from rollout.policy.stages import StagePosition

NS = 1_000_000_000
SCRIPT_START_S = 1_790_000_000
"""Unix second at which scripted time begins."""

QUICK = Policy(
    name="quick",
    shadow=ShadowStage(
        sample_bp=10_000, pairs_min=100, bake_s=0.5, faulty_max=2, flips_bp_max=2_000
    ),
    canary=(CanaryStep(share_bp=1_000, bake_s=0.5), CanaryStep(share_bp=5_000, bake_s=0.5)),
    watch_s=1.0,
    standby_bp=500,
    failure_bar=0.02,
    preload_s_max=20.0,
    stage_s_max=60.0,
    outcome=GoodOutcome(name="paid", at_least=1.0),
)
POLICIES = {"quick": QUICK, "quick-direct": replace(QUICK, name="quick-direct", shadow=None)}
SPEC = RolloutSpec(
    rollout_id="r1",
    model="churn",
    version="2",
    baseline="1",
    policy=QUICK,
    approval_id="a1",
    split_salt=b"s" * 16,
)
SOURCE = window_pb2.Source(gateway="g", slot=0, boot_id=7)

ARMS = {
    "canary": (window_pb2.ARM_CANARY, "2"),
    "production": (window_pb2.ARM_PRODUCTION, "1"),
    "promoted": (window_pb2.ARM_PRODUCTION, "2"),
    "standby": (window_pb2.ARM_STANDBY, "1"),
    "shadow": (window_pb2.ARM_SHADOW, "2"),
}


class FakeClock:
    """A controller's clock that only the test moves. Both of its clocks are the same."""

    def __init__(self) -> None:
        self.ns = SCRIPT_START_S * NS

    def now(self) -> ClockReading:
        """Return the time that the test has set."""
        return ClockReading(unix_ns=self.ns, monotonic_ns=self.ns)

    def advance(self, seconds: float) -> None:
        """Move the clock on by *seconds*."""
        self.ns += round(seconds * NS)


def instant_at(seconds: float) -> ClockReading:
    """Return the reading that is *seconds* after SCRIPT_START_S."""
    ns = SCRIPT_START_S * NS + round(seconds * NS)
    return ClockReading(unix_ns=ns, monotonic_ns=ns)


def make_window(
    arm: str,
    second: int,
    *,
    revision: int = 1,
    clean: Iterable[int] = (),
    errors: Iterable[int] = (),
    nan: Iterable[int] = (),
    pairs: tuple[int, int, int] = (0, 0, 0),
    sampled_of_65536: int = 65_536,
    model: str = "churn",
) -> window_pb2.Window:
    """Return a window. *second* counts from SCRIPT_START_S; *pairs* are (pairs, flips, faulty)."""
    kind, version = ARMS[arm]
    clean, errors, nan = list(clean), list(errors), list(nan)
    # Count the calls of the window.
    bad = len(errors) + len(nan)
    window = window_pb2.Window(
        model=model,
        version=version,
        arm=window_pb2.Arm.Name(kind),
        revision=revision,
        second=SCRIPT_START_S + second,
        calls=window_pb2.CallCounts(
            answered=len(clean),
            faulty=len(errors),
            nan=len(nan),
            fallbacks=bad if arm == "canary" else 0,
        ),
        sampled_of_65536=sampled_of_65536,
        first_bad_unix_ns=(SCRIPT_START_S + second) * NS + 100 if bad else 0,
        last_bad_unix_ns=(SCRIPT_START_S + second) * NS + 900 if bad else 0,
    )
    # Add a record of the keys for each metric.
    for metric, keys in (
        (window_pb2.METRIC_ERROR, errors),
        (window_pb2.METRIC_SCHEMA, nan),
        (window_pb2.METRIC_SCORE, clean),
    ):
        if keys:
            name = window_pb2.Metric.Name(metric)
            window.records.add(metric=name, key_hash=keys, bin=[0] * len(keys))
    # Only shadows are compared in pairs.
    if arm == "shadow":
        window.pairs.pairs, window.pairs.flips, window.pairs.faulty = pairs
    return window


def make_batch(
    sequence: int,
    *windows: window_pb2.Window,
    sent_s: float,
    source: window_pb2.Source = SOURCE,
    guards: Iterable[window_pb2.HardGuard] = (),
) -> window_pb2.WindowBatch:
    """Return a batch that is sent *sent_s* seconds after SCRIPT_START_S."""
    return window_pb2.WindowBatch(
        source=source,
        sequence=sequence,
        windows=windows,
        guards=guards,
        sent_unix_ns=SCRIPT_START_S * NS + round(sent_s * NS),
    )


def rollout_at(
    position: StagePosition, *, revision: int = 1, spec: RolloutSpec = SPEC, entered_s: float = 0
) -> Rollout:
    """Return a rollout that entered *position* at *entered_s*."""
    rollout = Rollout(spec=spec, started_unix_ms=SCRIPT_START_S * 1000)
    rollout.enter_position(position, revision, instant_at(entered_s), "scripted")
    return rollout


class FakeRegistry:
    """A registry in memory with compare-and-set, leases and checkpoints. It can be unreachable."""

    def __init__(self) -> None:
        self.deployments: dict[str, Deployment] = {}
        self.projects: dict[str, ProjectRevision] = {}
        self.checkpoints: dict[str, registry_pb2.Checkpoint] = {}
        self.approvals_given: list[registry_pb2.Approval] = []
        self.findings_written: list[registry_pb2.Finding] = []
        self.lease_token = 1
        self.down = False
        self.views: list[registry_pb2.VersionView] = []
        """What every version reads."""
        self.deployments_written: list[Deployment] = []
        self.before_deploy: list[Deployment] = []
        """Deployments that another writer writes just before the next deploy."""

    def write_deployment(self, deployment: Deployment) -> Deployment:
        """Write *deployment* as the next revision, without any check."""
        before = self.deployments.get(deployment.model)
        written = replace(deployment, revision=before.revision + 1 if before else 1)
        self.deployments[deployment.model] = written
        return written

    def _check(self, lease_token: int = 0) -> None:
        if self.down:
            raise RegistryUnavailableError("down")
        if lease_token and lease_token != self.lease_token:
            raise FencedError(f"token {lease_token} is fenced off by {self.lease_token}")

    async def list_projects(self) -> list[ProjectRevision]:
        """Return the newest revision of each project."""
        self._check()
        return [replace(revision, definitions=b"") for revision in self.projects.values()]

    async def get_project(self, name: str, revision: int = 0) -> ProjectRevision | None:
        """Return the newest revision of a project; there are no others."""
        self._check()
        newest = self.projects.get(name)
        return newest if newest is None or revision in (0, newest.revision) else None

    async def list_models(self) -> list[registry_pb2.ModelSummary]:
        """Return every model that has a deployment."""
        self._check()
        return [registry_pb2.ModelSummary(model=model) for model in self.deployments]

    async def deployment(self, model: str) -> Deployment:
        """Return the newest deployment."""
        self._check()
        return self.deployments[model]

    async def deploy(
        self,
        deployment: Deployment,
        *,
        lease_token: int = 0,
        policy_digest: str = "",
        rollback: bool = False,
        finding: int = 0,
    ) -> Deployment:
        """Write *deployment* if its revision is still the newest."""
        del policy_digest, rollback, finding  # the real registry checks them; walks do that
        self._check(lease_token)
        while self.before_deploy:
            self.write_deployment(self.before_deploy.pop(0))
        current = self.deployments[deployment.model]
        if current.revision != deployment.revision:
            raise RevisionConflictError(f"{current.revision}, not {deployment.revision}")
        written = self.write_deployment(replace(deployment, who="rollout"))
        self.deployments_written.append(written)
        return written

    async def get_version(self, model: str, version: str) -> registry_pb2.Version:
        """Return a version of that label; every label exists."""
        self._check()
        return registry_pb2.Version(
            model=model, label=version, author="ann", digest=version, views=self.views
        )

    async def approvals(self, model: str, version: str) -> list[registry_pb2.Approval]:
        """Return the approvals that the test has given."""
        self._check()
        return [
            approval
            for approval in self.approvals_given
            if (approval.model, approval.version) == (model, version)
        ]

    async def save_checkpoint(self, checkpoint: registry_pb2.Checkpoint) -> None:
        """Save a checkpoint that is not older than the saved one."""
        self._check(checkpoint.lease_token)
        stored = self.checkpoints.get(checkpoint.rollout_id)
        if stored is not None and checkpoint.sequence < stored.sequence:
            raise RevisionConflictError("older")
        self.checkpoints[checkpoint.rollout_id] = checkpoint

    async def load_checkpoint(self, rollout_id: str) -> registry_pb2.Checkpoint:
        """Return the newest checkpoint."""
        self._check()
        if rollout_id not in self.checkpoints:
            raise NotFoundError(rollout_id)
        return self.checkpoints[rollout_id]

    async def history(
        self, after: int = 0, limit: int = 0, object_prefix: str = ""
    ) -> registry_pb2.ListHistoryReply:
        """Return a page of 3 deployments of one model."""
        del limit
        self._check()
        entries = [
            registry_pb2.HistoryEntry(seq=seq, reason=deployment.why)
            for seq, deployment in enumerate(self.deployments_written, 1)
            if f"model/{deployment.model}/deployment".startswith(object_prefix) and seq > after
        ]
        head = registry_pb2.SignedHead(seq=len(self.deployments_written))
        return registry_pb2.ListHistoryReply(entries=entries[:3], head=head)

    async def findings(self, after: int = 0) -> AsyncIterator[registry_pb2.Finding]:
        """Yield the findings that the test has written."""
        self._check()
        for finding in self.findings_written[after:]:
            yield finding

    async def write_finding(self, finding: registry_pb2.Finding) -> registry_pb2.Finding:
        """Keep what the controller writes, as the registry does."""
        self._check(finding.lease_token)
        sequence = len(self.findings_written) + 1
        written = registry_pb2.Finding(
            sequence=sequence,
            model=finding.model,
            version=finding.version,
            kind=finding.kind,
            text=finding.text,
        )
        self.findings_written.append(written)
        return written

    async def watch_states(self) -> AsyncIterator[registry_pb2.GatewayState]:
        """Yield no state."""
        return
        yield
