"""One made-up or recorded rollout through this judge, and through other tools' beside it.

The evidence, the judge and the plan are the ones that run in production; only time and traffic
are made up.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

from protos import window_pb2
from rollout.evidence.approved_shift import Shift
from rollout.evidence.evidence import Evidence
from rollout.judge.judge import Facts, FleetView, judge
from rollout.lifecycle.deploy import Terms
from rollout.lifecycle.rollout import Now, Trial
from rollout.policy.policy import CanaryStep, Policy
from rollout.policy.stages import ENDS, Place, Stage, Verdict, share_bp
from rollout.simulation.other_judges import PEERS, Peer
from rollout.simulation.streams import (
    GOOD,
    NS,
    START,
    Scenario,
    Stream,
    Tick,
    second_of,
    windows_of,
)

OURS = "Turnout"
REVISION = 1
LIVE = FleetView(workers=1)


@dataclass(frozen=True, slots=True)
class Ended:
    """What one judge made of one rollout."""

    judge: str
    verdict: str
    """rolled back, promoted, held, undecided."""
    second: int
    """When, since the candidate got its share; the length of the look where nothing happened."""
    calls: int
    """The candidate's calls by then."""
    reason: str = ""


def at_share(share_bp_: int, alpha: float = 0.01) -> Policy:
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
        outcome=GOOD,
    )


def look(scenario: Scenario, policy: Policy, seed: int, seconds: int) -> Ended:
    """Judge *seconds* of a canary at the policy's first share; stop at a rollback."""
    stream = Stream(scenario, share_bp(Place(Stage.CANARY), policy) / 10_000, seed)
    return judged(stream.ticks(seconds), policy, stream.shift)


def judged(ticks: Iterable[Tick], policy: Policy, shift: Shift | None = None) -> Ended:
    """Judge a canary at the policy's first share, second by second; stop at a rollback."""
    place = Place(Stage.CANARY)
    evidence = Evidence("2", "1", policy, shift)
    calls, held, second = 0, "", 0
    for tick in ticks:
        calls += tick.candidate.calls
        second = tick.second + 1
        evidence.take(second_of(tick, REVISION), place, current=True)
        said = judge(policy, Facts(place=place, stayed_s=float(second), fleet=LIVE), evidence)
        if said.verdict == Verdict.FAULTY:
            return Ended(OURS, "rolled back", second, calls, said.reason)
        if said.verdict == Verdict.HOLD:
            held = held or said.reason
    return Ended(OURS, "held" if held else "undecided", second, calls, held)


def beside(ticks: Iterable[Tick]) -> list[Ended]:
    """Return what each other tool's judge makes of the same seconds."""
    peers: list[Peer] = [make() for make in PEERS]
    ended: dict[str, Ended] = {}
    calls = second = 0
    for tick in ticks:
        calls += tick.candidate.calls
        second = tick.second + 1
        for peer in peers:
            if peer.name not in ended and (why := peer.look(tick)):
                ended[peer.name] = Ended(peer.name, "rolled back", second, calls, why)
        if len(ended) == len(peers):
            break
    return [ended.get(one.name, Ended(one.name, "undecided", second, calls)) for one in peers]


@dataclass(slots=True)
class Course:
    """A whole rollout: where it stood when, and how it ended."""

    place: Place
    second: int = 0
    calls: int = 0
    steps: list[tuple[int, Place, str]] = field(default_factory=list)
    """(second, entered, why)."""
    holds: list[str] = field(default_factory=list)
    """Distinct reasons to hold, in order."""


def course(
    scenario: Scenario,
    policy: Policy,
    seed: int,
    seconds_max: int,
    *,
    lost: Container[int] = (),
    skew_s: float = 0.0,
) -> Course:
    """Play one rollout from its first canary share to its end, as the controller would.

    lost    which seconds' batches never reach the controller.
    skew_s  the controller's wall clock is so far ahead of the gateways'.
    """
    terms = Terms(
        rollout_id="simulated",
        model="simulated",
        version="2",
        baseline="1",
        policy=policy,
        approval_id="",
        split_salt=bytes(16),
    )
    stream = Stream(scenario, 0.0, seed)
    trial = Trial(terms=replace(terms, shift=stream.shift), started_unix_ms=START * 1000)
    trial.enter(Place(Stage.CANARY), REVISION, _now(0, skew_s), "simulated")
    played = Course(trial.place, steps=[(0, trial.place, "simulated")])
    stream.share = share_bp(trial.place, policy) / 10_000
    for tick in stream.ticks(seconds_max):
        played.calls += tick.candidate.calls
        played.second = tick.second + 1
        _deliver(trial, tick, lost=tick.second in lost, skew_s=skew_s)
        now = _now(tick.second + 1.5, skew_s)
        trial.close(now)
        to = trial.judge(now, LIVE)
        if trial.verdict == Verdict.HOLD and trial.reason not in played.holds:
            played.holds.append(trial.reason)
        if to != trial.place:
            reason = trial.reason
            trial.enter(to, trial.revision + 1, now, reason)
            played.steps.append((played.second, to, reason))
            stream.share = share_bp(to, policy) / 10_000
        if trial.place.stage in ENDS:
            break
    played.place = trial.place
    return played


def _deliver(trial: Trial, tick: Tick, *, lost: bool, skew_s: float) -> None:
    """Send one second's batch; a lost one leaves a gap in the numbers."""
    if lost:
        return
    watch = trial.place.stage == Stage.WATCH
    now = _now(tick.second + 1.0, skew_s)
    batch = window_pb2.WindowBatch(
        source=window_pb2.Source(gateway="simulated", boot_id=1),
        sequence=tick.second + 1,
        windows=windows_of(tick, trial.revision, watch=watch),
        sent_unix_ns=START * NS + (tick.second + 1) * NS,
    )
    trial.receive(batch, now)


def _now(seconds: float, skew_s: float) -> Now:
    monotonic = round(seconds * NS)
    return Now(unix_ns=START * NS + monotonic + round(skew_s * NS), monotonic_ns=monotonic)
