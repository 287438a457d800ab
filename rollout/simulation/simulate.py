"""One made-up or recorded rollout through this judge, and through other tools' beside it.

The evidence, the judge and the plan are the ones that run in production; only time and traffic
are made up.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

from protos import window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.evidence import Evidence
from rollout.judge.judge import FleetView, JudgeInputs, judge
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import CanaryStep, Policy
from rollout.policy.stages import FINAL_STAGES, Stage, StagePosition, Verdict, share_bp_at
from rollout.simulation.other_judges import OTHER_JUDGES, OtherJudge
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
    """What one judge made of one rollout."""

    judge: str
    verdict: str
    """rolled back, promoted, held, undecided."""
    second: int
    """When, since the candidate got its share; the length of the look where nothing happened."""
    calls: int
    """The candidate's calls by then."""
    reason: str = ""


def single_share_policy(share_bp_: int, alpha: float = 0.01) -> Policy:
    """Return a policy of one share that never grows: what detection is measured under."""
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
    stream = TrafficStream(
        scenario, share_bp_at(StagePosition(Stage.CANARY), policy) / 10_000, seed
    )
    return judge_ticks(stream.seconds_of_traffic(seconds), policy, stream.shift)


def judge_ticks(
    ticks: Iterable[TrafficSecond], policy: Policy, shift: ApprovedShift | None = None
) -> JudgeResult:
    """Judge a canary at the policy's first share, second by second; stop at a rollback."""
    place = StagePosition(Stage.CANARY)
    evidence = Evidence("2", "1", policy, shift)
    calls, held, second = 0, "", 0
    for tick in ticks:
        calls += tick.candidate.calls
        second = tick.second + 1
        evidence.count_second(as_closed_second(tick, REVISION), place, current=True)
        said = judge(
            policy,
            JudgeInputs(position=place, stayed_s=float(second), fleet=ONE_LIVE_WORKER),
            evidence,
        )
        if said.verdict == Verdict.FAULTY:
            return JudgeResult(TURNOUT_NAME, "rolled back", second, calls, said.reason)
        if said.verdict == Verdict.HOLD:
            held = held or said.reason
    return JudgeResult(TURNOUT_NAME, "held" if held else "undecided", second, calls, held)


def judge_with_others(ticks: Iterable[TrafficSecond]) -> list[JudgeResult]:
    """Return what each other tool's judge makes of the same seconds."""
    peers: list[OtherJudge] = [make() for make in OTHER_JUDGES]
    ended: dict[str, JudgeResult] = {}
    calls = second = 0
    for tick in ticks:
        calls += tick.candidate.calls
        second = tick.second + 1
        for peer in peers:
            if peer.name not in ended and (why := peer.judge_second(tick)):
                ended[peer.name] = JudgeResult(peer.name, "rolled back", second, calls, why)
        if len(ended) == len(peers):
            break
    return [ended.get(one.name, JudgeResult(one.name, "undecided", second, calls)) for one in peers]


@dataclass(slots=True)
class SimulatedRollout:
    """A whole rollout: where it stood when, and how it ended."""

    position: StagePosition
    second: int = 0
    calls: int = 0
    steps: list[tuple[int, StagePosition, str]] = field(default_factory=list)
    """(second, entered, why)."""
    holds: list[str] = field(default_factory=list)
    """Distinct reasons to hold, in order."""


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

    lost    which seconds' batches never reach the controller.
    skew_s  the controller's wall clock is so far ahead of the gateways'.
    """
    terms = RolloutSpec(
        rollout_id="simulated",
        model="simulated",
        version="2",
        baseline="1",
        policy=policy,
        approval_id="",
        split_salt=bytes(16),
    )
    stream = TrafficStream(scenario, 0.0, seed)
    trial = Rollout(spec=replace(terms, shift=stream.shift), started_unix_ms=STREAM_START_S * 1000)
    trial.enter_position(StagePosition(Stage.CANARY), REVISION, _now(0, skew_s), "simulated")
    played = SimulatedRollout(trial.position, steps=[(0, trial.position, "simulated")])
    stream.share = share_bp_at(trial.position, policy) / 10_000
    for tick in stream.seconds_of_traffic(seconds_max):
        played.calls += tick.candidate.calls
        played.second = tick.second + 1
        _deliver(trial, tick, lost=tick.second in lost, skew_s=skew_s)
        now = _now(tick.second + 1.5, skew_s)
        trial.count_closed_seconds(now)
        to = trial.judge(now, ONE_LIVE_WORKER)
        if trial.verdict == Verdict.HOLD and trial.reason not in played.holds:
            played.holds.append(trial.reason)
        if to != trial.position:
            reason = trial.reason
            trial.enter_position(to, trial.revision + 1, now, reason)
            played.steps.append((played.second, to, reason))
            stream.share = share_bp_at(to, policy) / 10_000
        if trial.position.stage in FINAL_STAGES:
            break
    played.position = trial.position
    return played


def _deliver(rollout: Rollout, tick: TrafficSecond, *, lost: bool, skew_s: float) -> None:
    """Send one second's batch; a lost one leaves a gap in the numbers."""
    if lost:
        return
    watch = rollout.position.stage == Stage.WATCH
    now = _now(tick.second + 1.0, skew_s)
    batch = window_pb2.WindowBatch(
        source=window_pb2.Source(gateway="simulated", boot_id=1),
        sequence=tick.second + 1,
        windows=traffic_windows(tick, rollout.revision, watch=watch),
        sent_unix_ns=STREAM_START_S * NS + (tick.second + 1) * NS,
    )
    rollout.receive(batch, now)


def _now(seconds: float, skew_s: float) -> ClockReading:
    monotonic = round(seconds * NS)
    return ClockReading(
        unix_ns=STREAM_START_S * NS + monotonic + round(skew_s * NS), monotonic_ns=monotonic
    )
