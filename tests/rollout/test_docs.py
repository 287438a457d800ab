"""The pages about rollouts say what the code does: diagram and tables are drawn from the code."""

import math
from pathlib import Path

import pytest

from rollout.evidence.records import METRIC_BY_NAME
from rollout.policy.policy import JUDGED_METRICS, POLICIES, Policy
from rollout.policy.stages import stage_diagram
from stats.rate import clean_keys_needed
from stats.tilt import MORE_EVENTS, events_to_fire

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "rollout.md").read_text()
METHOD = (DOCS / "rollout-method.md").read_text()


def policy_row(policy: Policy) -> str:
    """Return the row of a policy in the guide."""
    shadow = policy.shadow
    copied = f"{shadow.sample_bp / 100:g} %, {shadow.pairs_min:,} pairs" if shadow else "none"
    shares = ", ".join(f"{step.share_bp / 100:g} % ({step.bake_s:g} s)" for step in policy.canary)
    needed = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    return (
        f"| `{policy.name}` | {copied} | {shares} | {policy.watch_s:g} s, "
        f"{policy.standby_bp / 100:g} % | {100 * policy.failure_bar:g} %: {needed} |"
    )


def threshold_row(metric: str) -> str:
    """Return the row of a metric in the method; only failures have a fewest number of keys."""
    log_threshold = POLICIES["standard"].log_threshold(metric)
    shares = (0.05, 0.1, 0.5) if metric in METRIC_BY_NAME else ()
    fewest = [events_to_fire(MORE_EVENTS, share, log_threshold + math.log(2)) for share in shares]
    return (
        f"| {metric} | {dict(POLICIES['standard'].weights)[metric]:.2f} | {log_threshold:.2f} | "
        f"{', '.join(map(str, fewest)) or '-'} |"
    )


def test_guide_has_the_diagram_of_the_stages() -> None:
    """The diagram is drawn from the table NEXT_STAGE."""
    assert f"```mermaid\n{stage_diagram()}```" in GUIDE


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
def test_guide_has_every_policy(policy: Policy) -> None:
    """The row has shares, minimum stays, watch, and the clean keys that promote."""
    assert policy_row(policy) in GUIDE


@pytest.mark.parametrize("metric", JUDGED_METRICS)
def test_method_has_the_threshold_of_every_metric(metric: str) -> None:
    """The row has weight, threshold, and the fewest failing keys that can roll back."""
    assert threshold_row(metric) in METHOD
