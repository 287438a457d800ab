"""Policies: digests, thresholds and refused fields."""

import json
import math
from dataclasses import replace

import pytest

from rollout.policy.policy import DEMO, JUDGED_METRICS, POLICIES, STANDARD, CanaryStep


def test_policy_digest_depends_on_every_field() -> None:
    """Equal policies have equal digests."""
    assert replace(DEMO).digest == DEMO.digest
    assert len({policy.digest for policy in POLICIES.values()}) == len(POLICIES)
    assert replace(DEMO, promote_e=19.0).digest != DEMO.digest
    assert json.loads(DEMO.json)["canary"][0]["share_bp"] == 1000


def test_policy_thresholds_of_all_metrics_spend_alpha() -> None:
    """The error probabilities of the judged metrics add up to alpha."""
    spent = sum(math.exp(-STANDARD.log_threshold(metric)) for metric in JUDGED_METRICS)
    assert spent == pytest.approx(0.01)
    assert STANDARD.log_threshold("errors") == pytest.approx(math.log(500))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"canary": ()}, "must grow"),
        ({"canary": (CanaryStep(share_bp=10_000, bake_s=1),)}, "must grow"),
        ({"canary": DEMO.canary[::-1]}, "must grow"),
        ({"standby_bp": 0}, "needs a baseline"),
        ({"weights": (("errors", 0.5),)}, "add up to 1"),
    ],
)
def test_policy_refuses_contradictory_fields(change: dict[str, object], message: str) -> None:
    """The author learns it before the approval."""
    with pytest.raises(ValueError, match=message):
        replace(DEMO, **change)  # type: ignore[arg-type]


def test_policy_without_a_replay_keeps_its_digest() -> None:
    """Approvals from before there were replays go on; asking for one needs new approvals."""
    assert b"replay_days" not in STANDARD.json
    asking = replace(STANDARD, replay_days=7.0)
    assert b'"replay_days":7,' in asking.json
    assert asking.digest != STANDARD.digest
    for days in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="has replay_days"):
            replace(STANDARD, replay_days=days)
