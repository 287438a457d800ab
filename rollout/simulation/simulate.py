"""Plays one simulated or recorded rollout through the judge.

Evidence, judge and stages are the modules that run in production. Only time and traffic are
simulated.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from protos import window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.evidence import Evidence
from rollout.judge.judge import FleetView, JudgeInputs, judge
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import CanaryStep, Policy
from rollout.policy.stages import FINAL_STAGES, Stage, StagePosition, Verdict, share_bp_at
from rollout.simulation.streams import (
    GOOD_OUTCOME,
    NS,
    STREAM_START_S,
    Scenario,
    TrafficSecond,
    TrafficStream,
    as_closed_second,
    traffic_windows,
)

TURNOUT_NAME = "Turnout"
REVISION = 1
ONE_LIVE_WORKER = FleetView(workers=1)


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """The result of one judge on one rollout."""

    judge: str
    verdict: str
    """rolled back, promoted, held or undecided."""
    second: int
    """Seconds from the candidate's first share to the rollback, or to the end of the traffic."""
    calls: int
    """Calls of the candidate up to that second."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """The results of one judge on several rollouts."""

    judge: str
    runs: int
    rolled_back: int
    verdict: str
    """The verdict of the first rollout that was rolled back, or of the first rollout."""
    second: float
    """Median over the rollouts that were rolled back, or over all rollouts if none was."""
    calls: float
    """Calls of the candidate, as the same median."""
    reason: str

    @property
    def verdict_text(self) -> str:
        """The verdict of one rollout, or how many of several rollouts were rolled back."""
        if self.runs == 1:
            return self.verdict
        return f"{self.rolled_back} of {self.runs} rolled back"


def summarise_results(results: Sequence[JudgeResult]) -> JudgeSummary:
    """Return the summary of one judge's results; there is at least one result."""
    rolled_back = [result for result in results if result.verdict == "rolled back"]
    shown = rolled_back or results
    return JudgeSummary(
        judge=shown[0].judge,
        runs=len(results),
        rolled_back=len(rolled_back),
        verdict=shown[0].verdict,
        second=median(result.second for result in shown),
        calls=median(result.calls for result in shown),
        reason=shown[0].reason,
    )


def single_share_policy(share_bp_: int, alpha: float = 0.01) -> Policy:
    """Return a policy with one share that never grows. Detection is measured under it."""
    return Policy(
        name="simulated",
        shadow=None,
        canary=(CanaryStep(share_bp=share_bp_, bake_s=1e9),),
        watch_s=1e9,
        standby_bp=500,
        failure_bar=0.005,
        stage_s_max=1e9,
        alpha=alpha,
        outcome=GOOD_OUTCOME,
    )


def simulate_canary(scenario: Scenario, policy: Policy, seed: int, seconds: int) -> JudgeResult:
    """Judge *seconds* of a canary at the policy's first share; stop at a rollback."""
    share = share_bp_at(StagePosition(Stage.CANARY), policy) / 10_000
    stream = TrafficStream(scenario, share, seed)
    return judge_ticks(stream.seconds_of_traffic(seconds), policy, stream.shift)


def judge_ticks(
    ticks: Iterable[TrafficSecond], policy: Policy, shift: ApprovedShift | None = None
) -> JudgeResult:
    """Judge a canary at the policy's first share, second by second; stop at a rollback."""
    position = StagePosition(Stage.CANARY)
    evidence = Evidence("2", "1", policy, shift)
    calls, hold_reason, second = 0, "", 0
    for tick in ticks:
        calls += tick.candidate.calls
        second = tick.second + 1
        evidence.count_second(as_closed_second(tick, REVISION), position, current=True)
        judgement = judge(
            policy,
            JudgeInputs(position=position, stayed_s=float(second), fleet=ONE_LIVE_WORKER),
            evidence,
        )
        if judgement.verdict == Verdict.FAULTY:
            return JudgeResult(TURNOUT_NAME, "rolled back", second, calls, judgement.reason)
        if judgement.verdict == Verdict.HOLD:
            hold_reason = hold_reason or judgement.reason
    verdict = "held" if hold_reason else "undecided"
    return JudgeResult(TURNOUT_NAME, verdict, second, calls, hold_reason)


@dataclass(slots=True)
class SimulatedRollout:
    """A whole simulated rollout: its positions over time, and its end."""

    position: StagePosition
    second: int = 0
    calls: int = 0
    steps: list[tuple[int, StagePosition, str]] = field(default_factory=list)
    """(second, position entered, reason)."""
    holds: list[str] = field(default_factory=list)
    """Distinct reasons to hold, in the order in which they appeared."""


def simulate_rollout(
    scenario: Scenario,
    policy: Policy,
    seed: int,
    seconds_max: int,
    *,
    lost: Container[int] = (),
    skew_s: float = 0.0,
) -> SimulatedRollout:
    """Play one rollout from its first canary share to its end, as the controller would.

    lost    seconds whose batches never reach the controller.
    skew_s  seconds by which the controller's wall clock is ahead of the gateways' clocks.
    """
    spec = RolloutSpec(
        rollout_id="simulated",
        model="simulated",
        version="2",
        baseline="1",
        policy=policy,
        approval_id="",
        split_salt=bytes(16),
    )
    # Begin at the first canary share.
    stream = TrafficStream(scenario, 0.0, seed)
    rollout = Rollout(spec=replace(spec, shift=stream.shift), started_unix_ms=STREAM_START_S * 1000)
    rollout.enter_position(StagePosition(Stage.CANARY), REVISION, _now(0, skew_s), "simulated")
    simulated = SimulatedRollout(rollout.position, steps=[(0, rollout.position, "simulated")])
    stream.share = share_bp_at(rollout.position, policy) / 10_000
    for tick in stream.seconds_of_traffic(seconds_max):
        # Deliver one second of traffic, and judge half a second later, when it has closed.
        simulated.calls += tick.candidate.calls
        simulated.second = tick.second + 1
        _deliver(rollout, tick, lost=tick.second in lost, skew_s=skew_s)
        now = _now(tick.second + 1.5, skew_s)
        rollout.count_closed_seconds(now)
        target = rollout.judge(now, ONE_LIVE_WORKER)
        if rollout.verdict == Verdict.HOLD and rollout.reason not in simulated.holds:
            simulated.holds.append(rollout.reason)
        # Move to the next position at once, as if the registry had written it.
        if target != rollout.position:
            reason = rollout.reason
            rollout.enter_position(target, rollout.revision + 1, now, reason)
            simulated.steps.append((simulated.second, target, reason))
            stream.share = share_bp_at(target, policy) / 10_000
        if rollout.position.stage in FINAL_STAGES:
            break
    simulated.position = rollout.position
    return simulated


def _deliver(rollout: Rollout, tick: TrafficSecond, *, lost: bool, skew_s: float) -> None:
    """Deliver the batch of one second. A lost batch leaves a gap in the sequence numbers."""
    if lost:
        return
    batch = window_pb2.WindowBatch(
        source=window_pb2.Source(gateway="simulated", boot_id=1),
        sequence=tick.second + 1,
        windows=traffic_windows(
            tick, rollout.revision, watch=rollout.position.stage == Stage.WATCH
        ),
        sent_unix_ns=STREAM_START_S * NS + (tick.second + 1) * NS,
    )
    rollout.receive(batch, _now(tick.second + 1.0, skew_s))


def _now(seconds: float, skew_s: float) -> ClockReading:
    monotonic = round(seconds * NS)
    return ClockReading(
        unix_ns=STREAM_START_S * NS + monotonic + round(skew_s * NS), monotonic_ns=monotonic
    )
