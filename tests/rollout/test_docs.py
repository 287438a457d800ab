"""docs/rollout.md says what the code does: its diagram and its tables are drawn from it."""

import math
from pathlib import Path

import pytest

from rollout.evidence.records import METRIC_BY_NAME
from rollout.policy.policy import JUDGED_METRICS, POLICIES, Policy
from rollout.policy.stages import stage_diagram
from stats.rate import clean_keys_needed
from stats.tilt import MORE_EVENTS, events_to_fire

PAGE = (Path(__file__).parents[2] / "docs" / "rollout.md").read_text()


def policy_row(policy: Policy) -> str:
    """Return a policy's line of the table."""
    shadow = policy.shadow
    copied = f"{shadow.sample_bp / 100:g} %, {shadow.pairs_min:,} pairs" if shadow else "none"
    shares = ", ".join(f"{step.share_bp / 100:g} % ({step.bake_s:g} s)" for step in policy.canary)
    needed = clean_keys_needed(policy.failure_bar, policy.promote_log_threshold)
    return (
        f"| `{policy.name}` | {copied} | {shares} | {policy.watch_s:g} s, "
        f"{policy.standby_bp / 100:g} % | {100 * policy.failure_bar:g} %: {needed} |"
    )


def threshold_row(metric: str) -> str:
    """Return a metric's line of the table; fewest failing keys where an event is a failure."""
    log_threshold = POLICIES["standard"].log_threshold(metric)
    shares = (0.05, 0.1, 0.5) if metric in METRIC_BY_NAME else ()
    fewest = [events_to_fire(MORE_EVENTS, share, log_threshold + math.log(2)) for share in shares]
    return (
        f"| {metric} | {dict(POLICIES['standard'].weights)[metric]:.2f} | {log_threshold:.2f} | "
        f"{', '.join(map(str, fewest)) or '-'} |"
    )


def test_the_diagram_is_the_table() -> None:
    """A change of the plan is a change of the page."""
    assert f"```mermaid\n{stage_diagram()}```" in PAGE


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
def test_the_policies_are_the_ones_described(policy: Policy) -> None:
    """Shares, stays, watch, and the clean keys that promote."""
    assert policy_row(policy) in PAGE


@pytest.mark.parametrize("metric", JUDGED_METRICS)
def test_the_thresholds_are_the_ones_described(metric: str) -> None:
    """Weights, thresholds, and the fewest failing keys that can roll back."""
    assert threshold_row(metric) in PAGE
