"""Tests of check_gates with deployments that meet every gate, and deployments that fail one."""

from dataclasses import replace

import pytest

from protos import registry_pb2 as pb
from registry.rules.gates import Proposal, check_gates
from registry.rules.lifecycle import VersionFacts
from registry.rules.settings import SettingsChange
from registry.types import BadRequestError, Deployment, GateError, NotFoundError

POLICY = "ab" * 32


def version_facts(label: str, **changes: object) -> VersionFacts:
    """A version in staging by ann, with changes."""
    version = VersionFacts(
        label=label,
        digest=label * 64,
        author="ann",
        status=pb.STAGING,
        standby=False,
        was_production=False,
        returnable=False,
        rejected=False,
        input_contract="cc" * 32,
        entities=("subscriber",),
        outputs=1,
    )
    return replace(version, **changes)  # type: ignore[arg-type]


OLDEST = version_facts("0", status=pb.ARCHIVED, was_production=True, returnable=True)
PRODUCTION = version_facts("1", status=pb.PRODUCTION_STATUS, was_production=True, returnable=True)
OLD = version_facts("3", status=pb.ARCHIVED, was_production=True, returnable=True)
NEW = version_facts("5", status=pb.DEVELOPMENT)
SHELVED = version_facts("4", status=pb.ARCHIVED)
VERSIONS = {
    "0": OLDEST,
    "1": PRODUCTION,
    "2": version_facts("2"),
    "3": OLD,
    "4": SHELVED,
    "5": NEW,
}
CURRENT = Deployment(model="churn", revision=5, production="1")


def worker_state(slot: int = 0, state: str = "READY", reason: str = "") -> pb.GatewayState:
    """A worker with the same load state for every version."""
    loads = [
        pb.VersionLoad(version=version.label, digest=version.digest, state=state, reason=reason)
        for version in VERSIONS.values()
    ]
    return pb.GatewayState(gateway="g", slot=slot, loads=loads)


def approval_of(label: str = "2", **changes: object) -> pb.Approval:
    """Bob's approval of one version under the policy `careful`, with changes."""
    approval = pb.Approval(
        id="a1",
        version=label,
        version_digest=label * 64,
        policy_name="careful",
        policy_digest=POLICY,
        direct=True,
    )
    approval.MergeFrom(pb.Approval(**changes))  # type: ignore[arg-type]
    return approval


def proposal_for(proposed: Deployment, **changes: object) -> Proposal:
    """A proposal of *proposed* that meets every gate, with changes."""
    default = Proposal(
        actor="cleo",
        current=CURRENT,
        proposed=proposed,
        versions=VERSIONS,
        workers=[worker_state()],
        approval=approval_of(),
        revoked=False,
        settings_change=None,
        settings_approval=None,
        overdue_review="",
        policy_digest=POLICY,
        under_lease=False,
        rollback=False,
        break_glass=False,
    )
    return replace(default, **changes)  # type: ignore[arg-type]


CANARY = replace(CURRENT, canary="2", canary_bp=1_000)
PROMOTED = replace(CURRENT, production="2", standby="1", standby_bp=300)
SHADOWED = replace(CURRENT, shadows=(("2", 5_000),))
REJECTED_2 = {**VERSIONS, "2": version_facts("2", rejected=True)}
LADDER_APPROVAL = approval_of()
LADDER_APPROVAL.direct = False


@pytest.mark.parametrize("proposed", [CURRENT, CANARY, PROMOTED, SHADOWED])
def test_gates_let_a_correct_proposal_pass(proposed: Deployment) -> None:
    """No change, a canary, a promotion and a shadow pass."""
    check_gates(proposal_for(proposed))


@pytest.mark.parametrize(
    ("proposed", "changes", "message"),
    [
        (CANARY, {"workers": []}, "has version 2 ready; turnout splits preload churn 2"),
        (CANARY, {"workers": [worker_state(state="LOADING")]}, "none of 1 live"),
        (
            CANARY,
            {"workers": [worker_state(), worker_state(1, "REFUSED", "golden row 3")]},
            "worker g/1 refuses version 2: golden row 3",
        ),
        (SHADOWED, {"workers": []}, "ready"),
        (PROMOTED, {"workers": []}, "ready"),
        (CANARY, {"approval": None}, "no approval under policy 'abab"),
        (PROMOTED, {"approval": None}, "no approval"),
        (CANARY, {"approval": approval_of("3")}, "is for version 3, not for version 2"),
        (CANARY, {"approval": approval_of(policy_digest="cd" * 32)}, "this deployment runs under"),
        (CANARY, {"policy_digest": ""}, "this deployment runs under"),
        (CANARY, {"approval": approval_of(rejected=True)}, "is no longer valid"),
        (CANARY, {"revoked": True}, "is no longer valid"),
        (CANARY, {"approval": approval_of(policy_name="initial")}, "first production version"),
        (replace(CURRENT, production="4"), {}, "version 4 is archived"),
        (
            replace(CURRENT, production="5"),
            {},
            "in development; turnout splits preload churn 5",
        ),
        (replace(CURRENT, canary="5", canary_bp=1), {}, "version 5 is in development"),
        (replace(CURRENT, canary="3", canary_bp=1), {}, "version 3 is archived"),
        (replace(PROMOTED, production="1", standby="2"), {}, "was never production"),
        (CANARY, {"rollback": True}, r"brings nothing new, .*\['2'\]"),
        (SHADOWED, {"rollback": True}, r"brings nothing new, .*\['2'\]"),
        (replace(CURRENT, production="2"), {"rollback": True}, "was never production"),
        (replace(CURRENT, production="3"), {"rollback": True}, "is newer than version 1"),
        (
            replace(CURRENT, production="0"),
            {"rollback": True, "versions": {**VERSIONS, "0": replace(OLDEST, returnable=False)}},
            "under no approval that stands.*: there is none",
        ),
        (
            replace(PROMOTED, standby="0"),
            {
                "versions": {
                    **VERSIONS,
                    "0": replace(OLDEST, returnable=False, status=pb.PRODUCTION_STATUS),
                }
            },
            "version 0 was production under no approval that stands.*cannot be the standby",
        ),
        (SHADOWED, {"versions": REJECTED_2}, "version 2 was rejected under every policy"),
        (CANARY, {"versions": REJECTED_2, "break_glass": True}, "version 2 was rejected"),
        (
            replace(CURRENT, preload=("2",)),
            {"versions": REJECTED_2},
            "version 2 was rejected under every policy",
        ),
        (
            replace(CURRENT, approval_id="a1"),
            {"revoked": True},
            "approval a1 is no longer valid: version 2 was rejected",
        ),
        (replace(CURRENT, approval_id="a9"), {"approval": None}, "there is no approval 'a9'"),
        (PROMOTED, {"approval": LADDER_APPROVAL}, "lets version 2 take the steps"),
        (PROMOTED, {"approval": LADDER_APPROVAL, "under_lease": True}, "production at once"),
    ],
)
def test_gates_name_the_condition_that_is_not_met(
    proposed: Deployment, changes: dict[str, object], message: str
) -> None:
    """Readiness, approval, archive, standby and rollback fail once each."""
    with pytest.raises(GateError, match=message):
        check_gates(proposal_for(proposed, **changes))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input_contract": "dd" * 32}, "input_contract"),
        ({"entities": ("subscriber", "offer")}, "entities"),
        ({"outputs": 2}, "outputs"),
    ],
)
@pytest.mark.parametrize("proposed", [CANARY, PROMOTED, SHADOWED])
def test_gates_refuse_versions_that_need_different_calls(
    proposed: Deployment, change: dict[str, object], field: str
) -> None:
    """A caller cannot send one request that suits both versions."""
    versions = {**VERSIONS, "2": version_facts("2", **change)}

    with pytest.raises(GateError, match=field):
        check_gates(proposal_for(proposed, versions=versions))


def test_gates_name_the_newest_versions_when_one_is_unknown() -> None:
    """NotFoundError lists the labels that exist."""
    with pytest.raises(NotFoundError, match=r"no version '9'; its newest: 1, 2, 3, 4, 5"):
        check_gates(proposal_for(replace(CURRENT, preload=("9",))))


def test_gates_refuse_a_deployment_without_production() -> None:
    """A model that answers calls must go on answering."""
    with pytest.raises(BadRequestError, match="not take it away"):
        check_gates(proposal_for(Deployment(model="churn", revision=5, preload=("1",))))


def test_gates_let_any_version_be_preloaded() -> None:
    """A preloaded version gets no traffic, and must be preloaded to become ready."""
    check_gates(proposal_for(replace(CURRENT, preload=("2",)), workers=[], approval=None))


def test_gates_require_the_initial_approval_for_the_first_version() -> None:
    """An approval under another policy is not enough."""
    first = {"current": Deployment(model="churn"), "policy_digest": ""}
    proposed = Deployment(model="churn", production="2")

    check_gates(proposal_for(proposed, **first, approval=approval_initial()))
    with pytest.raises(GateError, match="no approval under policy 'initial'"):
        check_gates(proposal_for(proposed, **first, approval=None))
    with pytest.raises(GateError, match="first production version needs one under 'initial'"):
        check_gates(proposal_for(proposed, current=Deployment(model="churn")))


def approval_initial() -> pb.Approval:
    """An approval under `initial`, which has no policy digest."""
    return pb.Approval(
        id="a0", version="2", version_digest="2" * 64, policy_name="initial", direct=True
    )


def test_gates_let_a_rollback_pass_without_approval_and_workers() -> None:
    """A rollback returns to the standby while no gateway reports."""
    watching = Deployment(model="churn", revision=9, production="2", standby="1", standby_bp=300)
    rollback = replace(watching, production="1", standby="", standby_bp=0)

    check_gates(proposal_for(rollback, current=watching, approval=None, workers=[], rollback=True))
    with pytest.raises(GateError, match="no approval"):
        check_gates(proposal_for(rollback, current=watching, approval=None, workers=[]))


def test_gates_let_a_rollback_return_to_an_archived_version_that_is_ready() -> None:
    """An archived version is not in memory, so it must be loaded first."""
    rollback = replace(CURRENT, production="0")

    check_gates(proposal_for(rollback, approval=None, rollback=True))
    with pytest.raises(GateError, match="ready"):
        check_gates(proposal_for(rollback, approval=None, rollback=True, workers=[]))


def test_gates_let_break_glass_skip_the_approval_only() -> None:
    """A version that workers refuse is still refused."""
    check_gates(proposal_for(CANARY, approval=None, break_glass=True))
    with pytest.raises(GateError, match="refuses"):
        check_gates(proposal_for(CANARY, break_glass=True, workers=[worker_state(state="REFUSED")]))


def test_gates_let_a_rollback_return_to_any_standby() -> None:
    """A controller must always be able to take a bad version back, whatever was before it."""
    versions = {**VERSIONS, "1": replace(PRODUCTION, returnable=False, rejected=True)}
    watching = Deployment(model="churn", revision=9, production="2", standby="1", standby_bp=300)
    rollback = replace(watching, production="1", standby="", standby_bp=0)

    check_gates(
        proposal_for(rollback, current=watching, approval=None, rollback=True, versions=versions)
    )


def test_gates_let_a_rejected_production_become_the_standby() -> None:
    """Its replacement must be able to take over, and to be taken back."""
    versions = {**VERSIONS, "1": replace(PRODUCTION, returnable=False, rejected=True)}

    check_gates(proposal_for(PROMOTED, versions=versions))


def test_gates_let_the_controller_promote_the_canary_of_a_rollout() -> None:
    """The end of the steps needs no direct approval."""
    at_the_end = replace(CANARY, rollout_id="r1")
    promoted = replace(PROMOTED, rollout_id="r1")
    ladder: dict[str, object] = {"current": at_the_end, "approval": LADDER_APPROVAL}

    check_gates(proposal_for(promoted, **ladder, under_lease=True))
    with pytest.raises(GateError, match=r"turnout versions approve churn 2 --policy careful --di"):
        check_gates(proposal_for(promoted, **ladder))


def test_gates_require_another_person_for_settings() -> None:
    """The first production version sets them freely, and a rollback does not change them."""
    change = SettingsChange("holdout_bp from 0 to 500", "--holdout 5")
    approval = pb.SettingsApproval(approver="bob")
    unmet: dict[str, object] = {"settings_change": change}

    check_gates(proposal_for(CURRENT, **unmet, settings_approval=approval))
    check_gates(proposal_for(CURRENT, **unmet, break_glass=True))
    check_gates(
        proposal_for(
            Deployment(model="churn", production="2"),
            **unmet,
            current=Deployment(model="churn"),
            policy_digest="",
            approval=approval_initial(),
        )
    )
    for gap in (
        {"settings_approval": None},
        {"settings_approval": approval, "actor": "BOB"},
        {"settings_approval": None, "rollback": True},
    ):
        with pytest.raises(GateError, match=r"turnout splits approve churn --holdout 5\. Then"):
            check_gates(proposal_for(CURRENT, **unmet, **gap))


def test_gates_let_nobody_break_the_glass_for_a_version_of_their_own() -> None:
    """Ann's name in another spelling is Ann's. A smaller share of her version is not more of it."""
    unmet: dict[str, object] = {"approval": None, "break_glass": True}
    for name in ("ann", "ANN", "\N{FULLWIDTH LATIN SMALL LETTER A}nn"):
        for proposed in (CANARY, PROMOTED, SHADOWED):
            with pytest.raises(GateError, match="may not break the glass for it"):
                check_gates(proposal_for(proposed, **unmet, actor=name))

    check_gates(proposal_for(replace(CANARY, canary_bp=1), current=CANARY, **unmet, actor="ann"))


def test_gates_break_no_second_glass_while_a_review_is_overdue() -> None:
    """The message names the review. Deployments under an approval go on."""
    check_gates(proposal_for(CANARY, overdue_review="r7"))
    with pytest.raises(GateError, match="turnout audit close r7"):
        check_gates(proposal_for(CANARY, overdue_review="r7", break_glass=True))


def test_gates_let_a_canary_shrink_without_approval() -> None:
    """Less traffic is always allowed. More traffic is checked again."""
    smaller = replace(CANARY, canary_bp=100)
    unmet: dict[str, object] = {"approval": None, "workers": [], "revoked": True}

    check_gates(proposal_for(smaller, current=CANARY, **unmet))
    with pytest.raises(GateError):
        check_gates(proposal_for(CANARY, current=smaller, **unmet))
