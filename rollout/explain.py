"""A rollout told in plain words, decision by decision."""

from datetime import UTC, datetime

from protos import rollout_pb2

STAGE_WORDS = {
    rollout_pb2.PRELOAD: "preloaded",
    rollout_pb2.SHADOW_STAGE: "in the shadow of production",
    rollout_pb2.CANARY_STAGE: "answering as a canary",
    rollout_pb2.WATCH: "production, watched",
    rollout_pb2.DONE: "production",
    rollout_pb2.ROLLED_BACK: "rolled back",
    rollout_pb2.REFUSED_STAGE: "refused",
}


def explain(status: rollout_pb2.RolloutStatus, decisions: list[rollout_pb2.Decision]) -> str:
    """Return the story: where it stands and why, what it waits for, how it came there."""
    verdict = rollout_pb2.Verdict.Name(status.verdict)
    lines = [
        f"Version {status.version} of {status.model}, beside {status.baseline}, under policy "
        f"{status.policy}: {STAGE_WORDS.get(status.stage, 'not started')}"
        f"{' (paused)' if status.paused else ''}, with {status.share_bp / 100:g} % of calls.",
        f"{verdict}: {status.reason}.",
    ]
    lines += [f"  waits for {thing}" for thing in status.missing]
    for one in status.evidence:
        lines.append(
            f"  {one.metric}: {one.canary_events} keys failed on the candidate, "
            f"{one.baseline_events} on the baseline; ln e to roll back {one.log_e_max:.2f} of "
            f"{one.log_threshold:.2f}"
        )
    lines += list(_times(status.times))
    lines.append("What was decided:")
    for decision in decisions:
        at = datetime.fromtimestamp(decision.at_unix_ns / 1e9, tz=UTC)
        lines.append(
            f"  {at:%H:%M:%S.%f}"[:-3]
            + f"Z revision {decision.revision}: {STAGE_WORDS.get(decision.stage, '?')}; "
            + decision.reason
        )
    return "\n".join(lines) + "\n"


def _times(times: rollout_pb2.RollbackTimes) -> list[str]:
    if not times.verdict_unix_ns:
        return []
    first = times.first_bad_unix_ns or times.verdict_unix_ns
    told = [("first bad answer", times.first_bad_unix_ns), ("verdict", times.verdict_unix_ns)]
    told += [("traffic moved", times.moved_unix_ns), ("last bad answer", times.last_bad_unix_ns)]
    return [
        f"  {name}: {f'{(at - first) / 1e6:+,.0f} ms' if at else 'none, or not yet known'}"
        for name, at in told
    ]
