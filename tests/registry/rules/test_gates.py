"""Every gate of a deployment, tried closed and open."""

from dataclasses import replace

import pytest

from protos import registry_pb2 as pb
from registry.rules.gates import Proposal, check_gates
from registry.rules.lifecycle import VersionFacts
from registry.types import BadRequestError, Deployment, GateError, NotFoundError

POLICY = "ab" * 32


def facts(label: str, **changes: object) -> VersionFacts:
    """A version in staging by ann."""
    version = VersionFacts(
        label=label,
        digest=label * 64,
        author="ann",
        status=pb.STAGING,
        standby=False,
        was_production=False,
        input_contract="cc" * 32,
        entities=("subscriber",),
        outputs=1,
    )
    return replace(version, **changes)  # type: ignore[arg-type]


PRODUCTION = facts("1", status=pb.PRODUCTION_STATUS, was_production=True)
OLD = facts("3", status=pb.ARCHIVED, was_production=True)
NEW = facts("5", status=pb.DEVELOPMENT)
SHELVED = facts("4", status=pb.ARCHIVED)
VERSIONS = {"1": PRODUCTION, "2": facts("2"), "3": OLD, "4": SHELVED, "5": NEW}
CURRENT = Deployment(model="churn", revision=5, production="1")


def worker(slot: int = 0, state: str = "READY", reason: str = "") -> pb.GatewayState:
    """A worker that says the same of every version."""
    held = [
        pb.VersionLoad(version=v.label, digest=v.digest, state=state, reason=reason)
        for v in VERSIONS.values()
    ]
    return pb.GatewayState(gateway="g", slot=slot, loads=held)


def approval(label: str = "2", **changes: object) -> pb.Approval:
    """Bob's approval of one version under the policy `careful`."""
    found = pb.Approval(
        id="a1",
        version=label,
        version_digest=label * 64,
        policy_name="careful",
        policy_digest=POLICY,
    )
    found.MergeFrom(pb.Approval(**changes))  # type: ignore[arg-type]
    return found


def proposal(proposed: Deployment, **changes: object) -> Proposal:
    """Everything in order for *proposed*."""
    whole = Proposal(
        current=CURRENT,
        proposed=proposed,
        versions=VERSIONS,
        workers=[worker()],
        approval=approval(),
        revoked=False,
        policy_digest=POLICY,
        rollback=False,
        break_glass=False,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


CANARY = replace(CURRENT, canary="2", canary_bp=1_000)
PROMOTED = replace(CURRENT, production="2", standby="1", standby_bp=300)
SHADOWED = replace(CURRENT, shadows=(("2", 5_000),))


@pytest.mark.parametrize("proposed", [CURRENT, CANARY, PROMOTED, SHADOWED])
def test_everything_in_order_passes(proposed: Deployment) -> None:
    """No change, a canary, a promotion, a shadow."""
    check_gates(proposal(proposed))


@pytest.mark.parametrize(
    ("proposed", "changes", "words"),
    [
        (CANARY, {"workers": []}, "none of 0 live gateway workers has version 2 ready"),
        (CANARY, {"workers": [worker(state="LOADING")]}, "none of 1 live"),
        (
            CANARY,
            {"workers": [worker(), worker(1, "REFUSED", "golden row 3")]},
            "worker g/1 refuses version 2: golden row 3",
        ),
        (SHADOWED, {"workers": []}, "ready"),
        (PROMOTED, {"workers": []}, "ready"),
        (CANARY, {"approval": None}, "no approval under policy 'abab"),
        (PROMOTED, {"approval": None}, "no approval"),
        (CANARY, {"approval": approval("3")}, "is of version 3, not of version 2"),
        (CANARY, {"approval": approval(policy_digest="cd" * 32)}, "this deployment runs under"),
        (CANARY, {"policy_digest": ""}, "this deployment runs under"),
        (CANARY, {"approval": approval(rejected=True)}, "does not stand"),
        (CANARY, {"revoked": True}, "does not stand"),
        (CANARY, {"approval": approval(policy_name="initial")}, "first production version"),
        (replace(CURRENT, production="4"), {}, "version 4 is archived"),
        (replace(CURRENT, production="5"), {}, "version 5 is in development"),
        (replace(CURRENT, canary="5", canary_bp=1), {}, "version 5 is in development"),
        (replace(CURRENT, canary="3", canary_bp=1), {}, "version 3 is archived"),
        (replace(PROMOTED, production="1", standby="2"), {}, "was never production"),
        (CANARY, {"rollback": True}, r"brings nothing new, .*\['2'\]"),
        (SHADOWED, {"rollback": True}, r"brings nothing new, .*\['2'\]"),
        (replace(CURRENT, production="2"), {"rollback": True}, "was never production"),
    ],
)
def test_a_gate_that_is_not_met_says_which_and_what_to_do(
    proposed: Deployment, changes: dict[str, object], words: str
) -> None:
    """Readiness, approval, archive, standby, rollback: each closed once."""
    with pytest.raises(GateError, match=words):
        check_gates(proposal(proposed, **changes))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"input_contract": "dd" * 32}, "input_contract"),
        ({"entities": ("subscriber", "offer")}, "entities"),
        ({"outputs": 2}, "outputs"),
    ],
)
@pytest.mark.parametrize("proposed", [CANARY, PROMOTED, SHADOWED])
def test_versions_that_share_calls_must_agree_on_what_is_asked(
    proposed: Deployment, change: dict[str, object], what: str
) -> None:
    """A caller cannot send one request that suits both."""
    versions = {**VERSIONS, "2": facts("2", **change)}

    with pytest.raises(GateError, match=what):
        check_gates(proposal(proposed, versions=versions))


def test_a_version_that_does_not_exist_is_not_found() -> None:
    """The newest ones are named."""
    with pytest.raises(NotFoundError, match=r"no version '9'; its newest: 1, 2, 3, 4, 5"):
        check_gates(proposal(replace(CURRENT, preload=("9",))))


def test_production_may_be_replaced_and_not_taken_away() -> None:
    """A model that answers goes on answering."""
    with pytest.raises(BadRequestError, match="not take it away"):
        check_gates(proposal(Deployment(model="churn", revision=5, preload=("1",))))


def test_a_preloaded_version_needs_nothing() -> None:
    """It gets no traffic: that is how it becomes ready."""
    check_gates(proposal(replace(CURRENT, preload=("2",)), workers=[], approval=None))


def test_the_first_production_version_needs_the_initial_approval() -> None:
    """And only that one."""
    first = {"current": Deployment(model="churn"), "policy_digest": ""}
    proposed = Deployment(model="churn", production="2")

    check_gates(proposal(proposed, **first, approval=approval_initial()))
    with pytest.raises(GateError, match="no approval under policy 'initial'"):
        check_gates(proposal(proposed, **first, approval=None))
    with pytest.raises(GateError, match="first production version needs one under 'initial'"):
        check_gates(proposal(proposed, current=Deployment(model="churn")))


def approval_initial() -> pb.Approval:
    """An approval under `initial`, which has no policy to name."""
    return pb.Approval(id="a0", version="2", version_digest="2" * 64, policy_name="initial")


def test_a_rollback_needs_no_approval_and_no_worker() -> None:
    """From a watch to the version that stands by, with every gateway silent."""
    watching = Deployment(model="churn", revision=9, production="2", standby="1", standby_bp=300)
    back = replace(watching, production="1", standby="", standby_bp=0)

    check_gates(proposal(back, current=watching, approval=None, workers=[], rollback=True))
    with pytest.raises(GateError, match="no approval"):
        check_gates(proposal(back, current=watching, approval=None, workers=[]))


def test_a_rollback_may_bring_an_archived_production_version_back_once_it_is_ready() -> None:
    """It is not in memory any more, so it is loaded first."""
    back = replace(CURRENT, production="3")

    check_gates(proposal(back, approval=None, rollback=True))
    with pytest.raises(GateError, match="ready"):
        check_gates(proposal(back, approval=None, rollback=True, workers=[]))


def test_breaking_the_glass_needs_no_approval_but_a_version_that_loads() -> None:
    """Haste is no reason to answer with what no worker could load."""
    check_gates(proposal(CANARY, approval=None, break_glass=True))
    with pytest.raises(GateError, match="refuses"):
        check_gates(proposal(CANARY, break_glass=True, workers=[worker(state="REFUSED")]))


def test_a_canary_shrinks_without_asking_anybody() -> None:
    """Less traffic is always allowed; more is judged anew."""
    smaller = replace(CANARY, canary_bp=100)
    nothing: dict[str, object] = {"approval": None, "workers": [], "revoked": True}

    check_gates(proposal(smaller, current=CANARY, **nothing))
    with pytest.raises(GateError):
        check_gates(proposal(CANARY, current=smaller, **nothing))
