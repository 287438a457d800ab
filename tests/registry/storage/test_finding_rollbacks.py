"""Tests of the gate of rollbacks by findings: which finding, how old, and how often."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.rules.gates import DeployCommand
from registry.storage.store import RegistryStore
from registry.types import BadRequestError, Deployment, GateError
from tests.registry.runs.test_run_store import Clock
from tests.registry.storage.test_store import register_version

pytestmark = pytest.mark.walk

HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[RegistryStore]:
    """A registry whose production is version 2 of churn, after version 1."""
    opened = RegistryStore(tmp_path / "registry", clock.now_ns)
    for number in (1, 2):
        version = register_version(opened, number)
        approve = pb.ApproveRequest(
            model="churn",
            version=version.label,
            policy_name="initial" if number == 1 else "careful",
            policy_digest="" if number == 1 else "ab" * 32,
            reason="read",
            direct=number > 1,
        )
        approval = opened.approve("bob", approve)
        deploy(opened, production=version.label, approval=approval)
    yield opened
    opened.prove_again()
    assert not opened.stopped_reason
    opened.close()


def deploy(
    store: RegistryStore,
    *,
    production: str,
    approval: pb.Approval | None = None,
    finding: int = 0,
) -> Deployment:
    """Preload a version and make it production; with a finding as a rollback."""
    # One worker has every version.
    versions, _ = store.list_versions("churn")
    loads = [
        pb.VersionLoad(model="churn", version=v.label, digest=v.digest, state="READY")
        for v in versions
    ]
    workers = [pb.GatewayState(gateway="g", loads=loads)]
    # The workers load it first, and then it gets the traffic.
    current = store.deployment("churn")
    loaded = replace(current, preload=(production,), why="load it")
    named = "" if approval is None else approval.id
    for proposed in (
        loaded,
        replace(loaded, preload=(), production=production, approval_id=named, why="deploy it"),
    ):
        command = DeployCommand(
            deployment=replace(proposed, revision=store.deployment("churn").revision),
            lease_token=0,
            policy_digest="" if approval is None else approval.policy_digest,
            rollback=bool(finding),
            break_glass=False,
            finding=finding,
        )
        store.deploy("ctl", command, workers)
    return store.deployment("churn")


def find(store: RegistryStore, version: str = "2", kind: str = "rollback") -> int:
    """Write a finding; return its sequence."""
    finding = pb.Finding(model="churn", version=version, kind=kind, text="AUC fell")
    return store.write_finding("monitor", finding).sequence


def test_finding_takes_its_version_back_once_a_day(store: RegistryStore, clock: Clock) -> None:
    """One finding may deploy twice, to load and to move; another one waits for a day."""
    assert deploy(store, production="1", finding=find(store)).production == "1"
    # A person puts version 2 back, and it is found harmful again.
    approval = store.list_approvals("churn", "2")[0][0]
    deploy(store, production="2", approval=approval)
    clock.ms += 23 * HOUR_MS
    with pytest.raises(GateError, match="at most once a day"):
        deploy(store, production="1", finding=find(store))
    clock.ms += 2 * HOUR_MS
    assert deploy(store, production="1", finding=find(store)).production == "1"


@pytest.mark.parametrize(("version", "kind"), [("1", "rollback"), ("2", "hold"), ("9", "rollback")])
def test_finding_about_something_else_moves_nothing(
    store: RegistryStore, version: str, kind: str
) -> None:
    """It must ask for a rollback of what production is."""
    with pytest.raises(GateError, match="does not ask for a rollback of version 2"):
        deploy(store, production="1", finding=find(store, version, kind))
    with pytest.raises(GateError, match="does not ask"):
        deploy(store, production="1", finding=10_000)
    assert store.deployment("churn").production == "2"


def test_old_finding_moves_nothing(store: RegistryStore, clock: Clock) -> None:
    """After an hour a person decides."""
    finding = find(store)
    clock.ms += HOUR_MS + 1
    with pytest.raises(GateError, match="older than an hour"):
        deploy(store, production="1", finding=finding)


def test_rollback_finding_names_its_version(store: RegistryStore) -> None:
    """About the model alone it would not say what to leave."""
    with pytest.raises(BadRequestError, match="names the version"):
        find(store, version="")
