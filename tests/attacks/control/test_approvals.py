"""F10, F11, F15: approvals mean what people think, and a controller writes with its lease only."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import predict_pb2, predict_pb2_grpc, registry_pb2, rollout_pb2, rollout_pb2_grpc
from protos.registry_pb2_grpc import RegistryStub
from registry.chunks import message_chunks
from tests.attacks.conftest import PEOPLE
from tests.registry.project_definitions import PLAN, definitions_of
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.identified_system import MODEL, IdentifiedSystem, identified_system
from tests.walks.running_system import poll_system_until

pytestmark = pytest.mark.walk

POLICY = "demo-direct"
ROLLED_BACK = rollout_pb2.ROLLED_BACK


class AttackedApprovals:
    """A system of its own, because these attacks reject versions and change what is deployed."""

    def __init__(self, system: IdentifiedSystem, folder: Path, channel: grpc.Channel) -> None:
        self.identified = system
        self.registry = RegistryStub(channel)  # type: ignore[no-untyped-call]
        self.rollouts = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
        self._folder = folder
        self._versions = 1

    def call(self, name: str, method: Callable[..., Any], request: object) -> Any:  # noqa: ANN401  any reply
        """Call one RPC as *name*."""
        return method(request, metadata=self.identified.metadata(name), timeout=10)

    def refused(self, name: str, method: Callable[..., Any], request: object) -> tuple[str, str]:
        """Call one RPC as *name*, which must be refused; return the status and its words."""
        with pytest.raises(grpc.RpcError) as error:
            self.call(name, method, request)
        return error.value.code().name, error.value.details()

    def register(self, name: str) -> str:
        """Register a new version as *name*, and preload it on every worker; return its label."""
        self._versions += 1
        files = tiny_files(MODEL, weights=linear_weights(3) * self._versions)
        label = self.identified.register(name, self._folder / str(self._versions), files)
        self.identified.turnout("olga", "splits", "preload", MODEL, label)
        return label

    def approve(self, label: str, *options: str) -> str:
        """Approve a version as bob under POLICY; return the approval's id."""
        line = ("versions", "approve", MODEL, label, "--policy", POLICY, "--yes", *options)
        identity: str = self.identified.turnout("bob", *line)["id"]
        return identity

    def deployment(self) -> registry_pb2.Deployment:
        """Return the deployment as it is, with a reason for the next change."""
        reply: registry_pb2.Deployment = self.call(
            "olga", self.registry.GetDeployment, registry_pb2.ModelName(model=MODEL)
        )
        reply.why = "an attack"
        return reply

    def start(self, label: str) -> rollout_pb2.StartRolloutRequest:
        """Return the request that starts a rollout of a version."""
        return rollout_pb2.StartRolloutRequest(
            model=MODEL, version=label, policy=POLICY, reason="an attack"
        )

    def status(self) -> rollout_pb2.RolloutStatus:
        """Return the status of the newest rollout."""
        selector = rollout_pb2.RolloutSelector(model=MODEL)
        reply: rollout_pb2.RolloutStatus = self.call("olga", self.rollouts.GetStatus, selector)
        return reply

    def loaded_digests(self, seconds: float = 0.5) -> set[str]:
        """Return the ids that any live worker has loaded or loads, as the registry knows them."""
        states = self.registry.WatchStates(
            registry_pb2.WatchStatesRequest(),
            metadata=self.identified.metadata("olga"),
            timeout=seconds,
        )
        loads: dict[tuple[int, int], set[str]] = {}
        try:
            for state in states:
                key = (state.slot, state.boot_id)
                loads[key] = {load.digest for load in state.loads if load.model == MODEL}
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017
        assert loads
        return set().union(*loads.values())


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedApprovals]:
    """A system whose model has version 1 in production."""
    folder: Path = tmp_path_factory.mktemp("approvals")
    people = {"author": "alice", "approver": "bob", "operator": "olga"}
    with (
        identified_system(folder, PEOPLE, **people) as system,
        system.system.registry_channel() as channel,
    ):
        yield AttackedApprovals(system, folder, channel)


@pytest.mark.attack("F10")
def test_rollback_forward_is_refused(attacked: AttackedApprovals) -> None:
    """A controller, then an operator, "rolls back" to a version that was never approved."""
    label = attacked.register("alice")
    attacked.identified.turnout(
        "olga", "splits", "set", MODEL, "--production", label, "--break-glass"
    )
    attacked.identified.turnout("bob", "versions", "reject", MODEL, label)
    deployment = attacked.deployment()
    assert deployment.production == label, "without a good standby the rejected version stays"
    attacked.identified.turnout("olga", "rollout", "undo", MODEL, "--to", "1")

    deployment = attacked.deployment()
    deployment.production = label
    request = registry_pb2.DeployRequest(deployment=deployment, rollback=True)
    code, words = attacked.refused("ctl", attacked.registry.Deploy, request)
    assert (code, "sent no lease token" in words) == ("ABORTED", True)
    code, words = attacked.refused("olga", attacked.registry.Deploy, request)
    assert (code, "was rejected" in words) == ("FAILED_PRECONDITION", True)
    assert attacked.deployment().production == "1"
    close_reviews(attacked)


@pytest.mark.attack("F10")
def test_controller_without_the_lease_writes_nothing(attacked: AttackedApprovals) -> None:
    """A controller without the lease writes deployments, checkpoints and findings."""
    deployment = attacked.deployment()
    finding = registry_pb2.Finding(model=MODEL, kind="hold", text="forged")
    checkpoint = registry_pb2.Checkpoint(rollout_id="r1", sequence=2**60)
    deploy = registry_pb2.DeployRequest(deployment=deployment)
    requests = (
        (attacked.registry.Deploy, deploy),
        (attacked.registry.WriteFinding, finding),
        (attacked.registry.SaveCheckpoint, checkpoint),
    )
    for method, request in requests:
        for token in (0, 1, 2, 3):
            request.lease_token = token
            # A checkpoint travels in chunks.
            sent = message_chunks(request) if request is checkpoint else request
            code, words = attacked.refused("ctl", method, sent)
            assert (code, "lease" in words) == ("ABORTED", True), words
    assert attacked.deployment().revision == deployment.revision


@pytest.mark.attack("F10")
def test_lease_is_not_taken_by_name(attacked: AttackedApprovals) -> None:
    """A second controller reads holder and token in the history, and takes the lease with them."""
    request = registry_pb2.ListHistoryRequest(object="lease/")
    entries = attacked.call("alice", attacked.registry.ListHistory, request).entries
    assert entries
    assert all(set(entry.after) <= set('{"number":0123456789}') for entry in entries)
    # Each refusal names the holder, and neither the name nor a counted token is enough.
    holder = "rollout"
    for token in (0, 0, 1, 2, 3):
        lease = registry_pb2.LeaseRequest(name="rollout", holder=holder, seconds=5, token=token)
        code, words = attacked.refused("ctl", attacked.registry.AcquireLease, lease)
        assert code == "ABORTED"
        if "'s for another" in words:
            holder = words.split("is '")[1].split("''s for")[0]
    assert holder != "rollout"
    # The true controller still leads: it would refuse with UNAVAILABLE if it did not.
    code, _ = attacked.refused("olga", attacked.rollouts.Start, attacked.start("1"))
    assert code == "FAILED_PRECONDITION"


@pytest.mark.attack("F11")
def test_rejection_is_of_the_version(attacked: AttackedApprovals) -> None:
    """A rejection under today's policy file leaves a canary under yesterday's approval."""
    label = attacked.register("alice")
    approval = attacked.approve(label)
    request = registry_pb2.ApproveRequest(
        model=MODEL,
        version=label,
        policy_name=POLICY,
        policy_digest="ab" * 32,
        reason="no",
        reject=True,
    )

    rejection = attacked.call("bob", attacked.registry.Approve, request)

    assert list(rejection.ended) == [approval]
    deployment = attacked.deployment()
    deployment.canary.version, deployment.canary.share_bp = label, 9_000
    deployment.approval_id = approval
    deploy = registry_pb2.DeployRequest(deployment=deployment)
    code, words = attacked.refused("olga", attacked.registry.Deploy, deploy)
    assert (code, "is no longer valid" in words) == ("FAILED_PRECONDITION", True)


@pytest.mark.attack("F11")
def test_start_of_a_rejected_version_is_refused_at_once(attacked: AttackedApprovals) -> None:
    """A rollout is started after a rejection under every policy."""
    label = attacked.register("alice")
    approval = attacked.approve(label)
    shown = attacked.identified.turnout("bob", "versions", "reject", MODEL, label)
    assert shown["ended"] == [approval]
    assert int(shown["stopped_revision"]) == attacked.deployment().revision
    before = attacked.deployment()

    code, words = attacked.refused("olga", attacked.rollouts.Start, attacked.start(label))

    assert code == "FAILED_PRECONDITION"
    assert "was rejected by 'bob' under every policy" in words
    assert attacked.deployment() == before


@pytest.mark.attack("F11")
def test_rejection_stops_what_runs(attacked: AttackedApprovals) -> None:
    """A rejected version goes on as the canary of the rollout that runs, or is pinned."""
    label = attacked.register("alice")
    attacked.approve(label)
    digest = attacked.deployment().digests[label]
    attacked.call("olga", attacked.rollouts.Start, attacked.start(label))
    poll_system_until(lambda: attacked.deployment().canary.version == label, 30, "the canary")
    assert digest in attacked.loaded_digests()

    started = time.monotonic()
    attacked.identified.turnout("bob", "versions", "reject", MODEL, label, "--reason", "it leaks")

    # The deployment is without it at once, and the rollout has ended with the reason.
    deployment = attacked.deployment()
    assert (deployment.canary.version, deployment.rollout_id) == ("", "")
    status = poll_system_until(
        lambda: (now := attacked.status()).stage == ROLLED_BACK and now, 5, "the rollout ended"
    )
    assert f"version {label} was rejected by bob: it leaks" in status.reason
    assert time.monotonic() - started < 5
    # No gateway has it, and no caller reaches it.
    poll_system_until(lambda: digest not in attacked.loaded_digests(), 20, "unloaded everywhere")
    with grpc.insecure_channel(attacked.identified.system.addresses.gateway) as channel:
        predictor = predict_pb2_grpc.PredictorStub(channel)  # type: ignore[no-untyped-call]
        pinned = predict_pb2.PredictRequest(model=MODEL, version=label)
        pinned.rows.add(keys=["S1"], inputs=[1.0, 2.0, 3.0])
        with pytest.raises(grpc.RpcError) as refused:
            predictor.Predict(pinned, timeout=5)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.attack("F15")
def test_glass_is_not_broken_for_an_own_version(attacked: AttackedApprovals) -> None:
    """One person with three roles breaks the glass for a version of her own."""
    label = attacked.register("allie")
    deployment = attacked.deployment()
    deployment.production = label
    request = registry_pb2.DeployRequest(deployment=deployment, break_glass=True)

    code, words = attacked.refused("allie", attacked.registry.Deploy, request)

    assert (code, "may not break the glass for it" in words) == ("FAILED_PRECONDITION", True)


@pytest.mark.attack("F15")
def test_broken_glass_is_closed_by_another_person(attacked: AttackedApprovals) -> None:
    """The person who broke the glass, or the author, closes the review of it."""
    label = attacked.register("allie")
    line = ("splits", "set", MODEL, "--canary", f"{label}=1", "--break-glass")
    attacked.identified.turnout("olga", *line)
    (review,) = attacked.identified.turnout("bob", "audit", "reviews", MODEL)
    assert (review["opened_by"], review["authors"]) == ("olga", ["allie"])
    for name in ("olga", "allie"):
        close = registry_pb2.CloseReviewRequest(id=review["id"], reason="all is well")
        code, words = attacked.refused(name, attacked.registry.CloseReview, close)
        assert (code, "another person" in words) == ("FAILED_PRECONDITION", True)
    assert attacked.refused("alice", attacked.registry.CloseReview, close)[0] == "PERMISSION_DENIED"
    close_reviews(attacked)
    attacked.identified.turnout("olga", "splits", "set", MODEL, "--canary", "none")


@pytest.mark.attack("F15")
def test_approval_of_steps_is_not_of_production(attacked: AttackedApprovals) -> None:
    """An approval under a rollout policy takes a version to production without a canary."""
    label = attacked.register("alice")
    attacked.approve(label)
    line = ("splits", "set", MODEL, "--production", label)
    words = attacked.identified.turnout("olga", *line, exit_code=1)
    assert f"turnout versions approve {MODEL} {label} --policy {POLICY} --direct" in words.replace(
        "\n", " "
    )
    # The verb that skips steps asks for the same approval.
    attacked.call("olga", attacked.rollouts.Start, attacked.start(label))
    promote = rollout_pb2.RolloutCommand(model=MODEL, reason="now", full=True)
    code, words = attacked.refused("olga", attacked.rollouts.Promote, promote)
    assert (code, "so none is skipped" in words) == ("FAILED_PRECONDITION", True)
    attacked.identified.turnout("olga", "rollout", "abort", MODEL)
    assert attacked.deployment().production == "1"


@pytest.mark.attack("F15")
def test_settings_are_not_changed_alone(attacked: AttackedApprovals) -> None:
    """One operator sends everybody to the control group and thins out the evidence."""
    deployment = attacked.deployment()
    changes: tuple[dict[str, Any], ...] = (
        {"holdout_bp": 10_000},
        {"split_salt": b"A" * 16},
        {"policy": registry_pb2.ServingPolicy(default_score=0.99)},
        {"policy": registry_pb2.ServingPolicy(decision_threshold=-1e30)},
        {"policy": registry_pb2.ServingPolicy(evidence_sampled_of_65536=1)},
        {"policy": registry_pb2.ServingPolicy(journal_sampled_of_65536=1)},
    )
    for change in changes:
        proposed = registry_pb2.Deployment()
        proposed.CopyFrom(deployment)
        proposed.MergeFrom(registry_pb2.Deployment(**change))
        for rollback in (False, True):
            request = registry_pb2.DeployRequest(deployment=proposed, rollback=rollback)
            code, words = attacked.refused("olga", attacked.registry.Deploy, request)
            assert (code, "turnout splits approve" in words) == ("FAILED_PRECONDITION", True)
    assert attacked.deployment() == deployment
    # The way out: the exact command by another person, and then the same command again.
    line = ("splits", "set", MODEL, "--holdout", "5", "--setting", "default_score=0.25")
    words = attacked.identified.turnout("olga", *line, exit_code=1).replace("\n", " ")
    command = words.split("turnout splits approve ")[1].split(". Then")[0]
    assert command == f"{MODEL} --holdout 5 --setting default_score=0.25"
    attacked.identified.turnout("bob", "splits", "approve", *command.split())
    shown = attacked.identified.turnout("olga", *line)
    assert (shown["holdout_bp"], shown["policy"]["default_score"]) == (500, 0.25)


def close_reviews(attacked: AttackedApprovals) -> None:
    """Close every open review as bob."""
    for review in attacked.identified.turnout("bob", "audit", "reviews"):
        line = ("audit", "close", review["id"], "--reason", "an attack of the tests")
        attacked.identified.turnout("bob", *line)


@pytest.mark.attack("F15")
def test_settings_are_not_changed_alone_by_a_project(attacked: AttackedApprovals) -> None:
    """An author or an operator applies a project that sends everybody to the control group."""
    deployment = attacked.deployment()
    settings = {"holdout_bp": 10_000, "serving": {"default_score": 0.99}}
    policy = {"base": "standard", "failure_bar": 0.99}

    def apply(name: str, **sections: Any) -> tuple[str, str]:  # noqa: ANN401  of any section
        request = registry_pb2.ApplyProjectRequest(
            name="evil",
            definitions=definitions_of("evil", **sections),
            plan_digest=PLAN,
            reason="as planned",
        )
        # A stream of chunks in place of a request.
        return attacked.refused(name, attacked.registry.ApplyProject, message_chunks(request))

    # An author changes neither settings nor policies; approver and gateway apply nothing.
    assert apply("alice", models={MODEL: settings})[0] == "PERMISSION_DENIED"
    assert apply("alice", policies={"lax": policy})[0] == "PERMISSION_DENIED"
    for name in ("bob", "gw2", "ctl"):
        assert apply(name)[0] == "PERMISSION_DENIED"
    # An operator needs another person, also one who has every role.
    code, words = apply("olga", models={MODEL: settings})
    assert (code, "turnout splits approve" in words) == ("FAILED_PRECONDITION", True)
    own = ("splits", "approve", MODEL, "--holdout", "100", "--setting", "default_score=0.99")
    attacked.identified.turnout("allie", *own)
    assert apply("allie", models={MODEL: settings})[0] == "FAILED_PRECONDITION"
    # Nothing is left of any of them.
    listed = attacked.registry.ListProjects(
        registry_pb2.ListProjectsRequest(), metadata=attacked.identified.metadata("olga")
    )
    assert not listed.revisions
    assert attacked.deployment() == deployment
