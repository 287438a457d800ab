"""Tests of rejections, rollbacks, reviews and settings in the store, with a clock of its own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry import bundle
from registry.rules.gates import DeployCommand
from registry.storage.rejections import WrittenRejection
from registry.storage.reviews import REVIEW_MS
from registry.storage.store import RegistryStore
from registry.types import BadRequestError, Deployment, GateError, NotFoundError
from tests.registry.storage.test_store import execute_sql
from tests.tiny_models import linear_weights, tiny_files

POLICY = "ab" * 32


class StoredModel:
    """A store whose model churn has version 1 by ann in production, approved by bob."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = 1_790_000_000_000
        self.store = RegistryStore(folder, lambda: self.now_ms * 1_000_000)
        self.ids: dict[str, str] = {}
        """Label -> the id of its newest approval."""
        self.register()
        self.approve("1", "initial", digest="")
        self.deploy(production="1")

    def register(self) -> str:
        """Register another version as ann, in staging; return its label."""
        number = len(self.store.list_versions("churn")[0]) + 1
        files = bundle.seal_files(
            tiny_files(weights=linear_weights(3) * number),
            model="churn",
            author="ann",
            created_unix_ms=number,
        )
        verified = bundle.verify_bundle(files, trusted_key=None)
        label = self.store.register("ann", verified, files).label
        request = pb.SetStatusRequest(
            model="churn", version=label, status=pb.STAGING, reason="it was tried"
        )
        self.store.set_status("ann", request)
        return label

    def approve(
        self, label: str, policy: str = "careful", digest: str = POLICY, *, direct: bool = True
    ) -> pb.Approval:
        """Approve a version as bob."""
        request = pb.ApproveRequest(
            model="churn",
            version=label,
            policy_name=policy,
            policy_digest=digest,
            reason="fine",
            direct=direct,
        )
        approval = self.store.approve("bob", request)
        self.ids[label] = approval.id
        return approval

    def reject(self, label: str, policy: str = "", actor: str = "bob") -> WrittenRejection:
        """Reject a version, under every policy or under one."""
        request = pb.ApproveRequest(
            model="churn", version=label, policy_name=policy, reason="it leaks", reject=True
        )
        return self.store.reject(actor, request)

    def deploy(
        self,
        *,
        actor: str = "olga",
        token: int = 0,
        rollback: bool = False,
        break_glass: bool = False,
        **changes: object,
    ) -> Deployment:
        """Deploy *changes*; every version is ready. A new version names its newest approval."""
        current = self.store.deployment("churn")
        proposed = replace(current, **{"why": "by hand", **changes})  # type: ignore[arg-type]
        new = proposed.canary or proposed.production
        approval_id = self.ids.get(new, "")
        if "approval_id" not in changes and approval_id:
            proposed = replace(proposed, approval_id=approval_id)
        approvals = {given.id: given for given in self.store.list_approvals("churn", new)[0]}
        named = approvals.get(proposed.approval_id)
        loads = [
            pb.VersionLoad(digest=version.digest, state="READY")
            for version in self.store.list_versions("churn")[0]
        ]
        command = DeployCommand(
            deployment=proposed,
            lease_token=token,
            policy_digest=named.policy_digest if named else "",
            rollback=rollback,
            break_glass=break_glass,
        )
        return self.store.deploy(actor, command, [pb.GatewayState(gateway="g", loads=loads)])


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    """A store with version 1 in production and an approved version 2."""
    model = StoredModel(tmp_path)
    assert model.register() == "2"
    model.approve("2")
    return model


@pytest.mark.parametrize(
    ("roles", "policy"),
    [
        ({"canary": "2", "canary_bp": 500, "rollout_id": "r1"}, ""),
        ({"canary": "2", "canary_bp": 500, "rollout_id": "r1"}, "careful"),
        ({"shadows": (("2", 5_000),), "rollout_id": "r1", "approval_id": "its own"}, ""),
        ({"shadows": (("2", 5_000),), "rollout_id": "r1", "approval_id": "its own"}, "careful"),
        ({"preload": ("2",)}, ""),
    ],
)
def test_rejection_takes_the_version_out_of_the_deployment(
    stored: StoredModel, roles: dict[str, object], policy: str
) -> None:
    """It says which approvals it ended, and the history has the deployment in the same moment."""
    approval = stored.store.list_approvals("churn", "2")[0][0]
    if "approval_id" in roles:
        roles = {**roles, "approval_id": approval.id}
    before = stored.deploy(**roles)

    written = stored.reject("2", policy)

    after = stored.store.deployment("churn")
    assert after == written.deployment
    assert (after.revision, after.versions) == (before.revision + 1, ("1",))
    assert (after.canary_bp, after.rollout_id) == (0, "")
    assert after.why == "version 2 was rejected by bob: it leaks"
    assert list(written.rejection.ended) == [approval.id]
    assert written.rejection.stopped_revision == after.revision
    assert written.finding is None
    newest = stored.store.history(after=0, limit=0, object_prefix="model/churn").entries[-2:]
    assert [entry.action for entry in newest] == ["reject", "deploy rejection"]
    assert json.loads(newest[0].after)["ended"] == [approval.id]
    assert json.loads(newest[1].after)["rejection"] == written.rejection.id
    # Nothing of it comes back.
    for again in (roles, {"preload": ("2",)}):
        with pytest.raises(GateError, match="rejected" if policy == "" else "no longer valid"):
            stored.deploy(**{**again, "approval_id": approval.id})


def test_rejection_under_one_policy_leaves_what_runs_under_another(stored: StoredModel) -> None:
    """A rejection that ends nothing says so, and the deployment stays."""
    before = stored.deploy(canary="2", canary_bp=500)

    written = stored.reject("2", "other")

    assert list(written.rejection.ended) == []
    assert written.deployment is None
    assert stored.store.deployment("churn") == before


def test_rejection_of_production_goes_back_to_a_good_standby(stored: StoredModel) -> None:
    """The rejected version is archived, and the standby is production alone."""
    stored.deploy(canary="2", canary_bp=500, rollout_id="r1")
    stored.deploy(
        production="2", standby="1", standby_bp=300, canary="", canary_bp=0, rollout_id="r1"
    )

    written = stored.reject("2")

    after = stored.store.deployment("churn")
    assert (after.production, after.versions, after.rollout_id) == ("1", ("1",), "")
    assert written.finding is None
    assert stored.store.get_version("churn", "2").status == pb.ARCHIVED
    with pytest.raises(GateError, match="version 2 was rejected under every policy"):
        stored.deploy(production="2", rollback=True)


def test_rejection_of_production_without_a_standby_leaves_a_loud_finding(
    stored: StoredModel,
) -> None:
    """A model must go on answering. The finding names the version to go back to."""
    before = stored.deploy(production="2")

    written = stored.reject("2")

    assert stored.store.deployment("churn") == before
    assert written.deployment is None
    assert written.finding is not None
    assert written.finding.kind == "rejected"
    assert "version 2 was rejected by bob and is still production" in written.finding.text
    assert "turnout rollout undo churn --to 1" in written.finding.text
    # That is the way out.
    assert stored.deploy(production="1", rollback=True).production == "1"


def test_rollback_returns_only_to_what_was_production_under_a_standing_approval(
    stored: StoredModel,
) -> None:
    """Neither a broken glass nor a rejected version counts, and the message says what would do."""
    stored.register()
    stored.deploy(production="2")
    stored.deploy(production="3", break_glass=True)
    stored.register()
    stored.approve("4")
    stored.deploy(production="4")

    with pytest.raises(GateError, match=r"version 3 was production under no approval.*: 2, 1\."):
        stored.deploy(production="3", rollback=True)
    stored.reject("2")
    with pytest.raises(GateError, match="version 2 was rejected"):
        stored.deploy(production="2", rollback=True)
    assert stored.deploy(production="1", rollback=True).production == "1"
    with pytest.raises(GateError, match="version 4 is newer than version 1"):
        stored.deploy(production="4", rollback=True)


def test_rollback_from_a_watch_goes_back_to_a_version_behind_broken_glass(
    stored: StoredModel,
) -> None:
    """The controller must have a way back, whatever was production before."""
    stored.register()
    stored.deploy(production="2", break_glass=True)
    stored.register()
    stored.approve("4", direct=True)
    stored.deploy(production="4", standby="2", standby_bp=300)

    back = stored.deploy(production="2", standby="", standby_bp=0, rollback=True)

    assert back.production == "2"


def test_direct_deployment_needs_a_direct_approval_and_promotion_does_not(
    stored: StoredModel,
) -> None:
    """The controller promotes the canary of its rollout under the lease."""
    stored.register()
    stored.approve("3", direct=False)
    with pytest.raises(GateError, match=r"turnout versions approve churn 3 .* --direct"):
        stored.deploy(production="3")

    lease = stored.store.acquire_lease(
        "ctl", pb.LeaseRequest(name="rollout", holder="one", seconds=60)
    )
    stored.deploy(canary="3", canary_bp=500, rollout_id="r1", actor="ctl", token=lease.token)
    promoted = {"production": "3", "standby": "1", "standby_bp": 300, "canary": "", "canary_bp": 0}
    with pytest.raises(GateError, match="makes it production at once"):
        stored.deploy(**promoted)
    assert stored.deploy(**promoted, actor="ctl", token=lease.token).production == "3"


def test_broken_glass_is_reviewed_by_another_person_in_time(stored: StoredModel) -> None:
    """While a review is overdue, no second glass is broken for the model."""
    stored.deploy(canary="2", canary_bp=500, approval_id="", break_glass=True)
    (review,) = stored.store.list_reviews("churn", open_only=True)
    assert (review.opened_by, list(review.authors), review.revision) == ("olga", ["ann"], 2)
    assert review.due_unix_ms == stored.now_ms + REVIEW_MS

    # Within the time the glass may be broken again; after it, no more.
    stored.deploy(canary="2", canary_bp=600, approval_id="", break_glass=True)
    stored.now_ms += REVIEW_MS + 1
    with pytest.raises(GateError, match=f"turnout audit close {review.id}"):
        stored.deploy(canary="2", canary_bp=700, approval_id="", break_glass=True)
    # Neither who broke it nor the author closes a review, in no spelling.
    for actor in ("olga", "OLGA", "ann"):
        with pytest.raises(GateError, match="another person than these must close it"):
            close_review(stored, review, actor)
    with pytest.raises(BadRequestError, match="with a reason"):
        close_review(stored, review, "bob", reason=" ")
    with pytest.raises(NotFoundError, match="no review 'r9'"):
        stored.store.close_review("bob", pb.CloseReviewRequest(id="r9", reason="x"))
    # Bob closes all of them, each once.
    for open_review in stored.store.list_reviews("", open_only=True):
        assert close_review(stored, open_review, "bob").closed_by == "bob"
    with pytest.raises(GateError, match="was closed by 'bob'"):
        close_review(stored, review, "bob")
    stored.deploy(canary="2", canary_bp=700, approval_id="", break_glass=True)
    entries = stored.store.history(after=0, limit=0, object_prefix="model/churn/review/").entries
    assert [entry.action for entry in entries] == [
        "open review", "open review", "close review", "close review", "open review",
    ]  # fmt: skip
    assert json.loads(entries[2].after)["closed_by"] == "bob"


def close_review(
    stored: StoredModel, review: pb.Review, actor: str, reason: str = "I looked"
) -> pb.Review:
    """Close a review as *actor*."""
    return stored.store.close_review(actor, pb.CloseReviewRequest(id=review.id, reason=reason))


def test_settings_change_under_the_approval_of_another_person_once(stored: StoredModel) -> None:
    """The approval is of these settings in place of those, and its id is in the history."""
    policy = pb.ServingPolicy(default_score=0.25)
    with pytest.raises(GateError, match=r"splits approve churn --holdout 5 --setting default_sc"):
        stored.deploy(holdout_bp=500, policy=policy)
    request = pb.SettingsRequest(model="churn", holdout_bp=500, policy=policy, reason="fine")
    own = stored.store.approve_settings("olga", request)
    with pytest.raises(GateError, match="another person than 'Olga'"):
        stored.deploy(holdout_bp=500, policy=policy, actor="Olga")

    approval = stored.store.approve_settings("bob", request)
    stored.store.approve_settings("olga", request)

    assert (own.digest, own.replaces) == (approval.digest, approval.replaces)
    with pytest.raises(GateError, match="holdout_bp from 0 to 501"):
        stored.deploy(holdout_bp=501, policy=policy)
    assert stored.deploy(holdout_bp=500, policy=policy).holdout_bp == 500
    entry = stored.store.history(after=0, limit=0, object_prefix="model/churn/deployment").entries
    assert json.loads(entry[-1].after)["settings_approval"] == approval.id
    with pytest.raises(BadRequestError, match="has these settings already"):
        stored.store.approve_settings("bob", request)
    # In place of other settings it is no approval any more.
    with pytest.raises(GateError, match="from 500 to 0"):
        stored.deploy(holdout_bp=0, policy=policy)


def test_set_status_needs_a_reason(stored: StoredModel) -> None:
    """The history says why."""
    request = pb.SetStatusRequest(model="churn", version="2", status=pb.ARCHIVED, reason=" ")
    with pytest.raises(BadRequestError, match="needs a reason"):
        stored.store.set_status("ann", request)


def test_database_of_an_earlier_release_gets_the_new_columns(tmp_path: Path) -> None:
    """Approvals that were given before are not direct, and they stand."""
    StoredModel(tmp_path).store.close()
    execute_sql(
        tmp_path,
        "ALTER TABLE approvals DROP COLUMN direct",
        "ALTER TABLE approvals DROP COLUMN ended",
        "ALTER TABLE approvals DROP COLUMN stopped_revision",
        "ALTER TABLE versions DROP COLUMN production_approval",
        "DROP TABLE reviews",
        "DROP TABLE settings_approvals",
    )

    store = RegistryStore(tmp_path, lambda: 1)

    ((approval,), _) = store.list_approvals("churn", "1")
    assert (approval.direct, list(approval.ended), approval.stopped_revision) == (False, [], 0)
    assert store.list_reviews("", open_only=False) == []
    store.close()
