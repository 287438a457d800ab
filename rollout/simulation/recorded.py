"""Reads the calls that gateways recorded in their journals, as seconds of traffic of two arms.

The journal says which version answered each call, and in which role. A call that production
answered in the candidate's place (FALLBACK) is a failure of the candidate. Latencies, timeouts and
production's score of the same row are not in the journal, so a replay judges failures only.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from protos import journal_pb2, predict_pb2
from rollout.simulation.streams import NS, ArmTraffic, TrafficSecond


def replay_journal(
    batches: Iterable[journal_pb2.ServedBatch], model: str, version: str, share: float
) -> Iterator[TrafficSecond]:
    """Yield each second in which *version* was the canary of *model*, oldest first.

    share  the candidate's configured share of both arms, 0 to 1. The journal does not have it.
    """
    keys_by_second: dict[tuple[int, int], tuple[list[NDArray[np.uint64]], ...]] = {}
    canary_revisions: set[int] = set()
    # Sort the keys of each second and revision into answered, failed and baseline keys.
    for batch in batches:
        if batch.model != model:
            continue
        keys = np.frombuffer(batch.key_hash, dtype="<u8").astype(np.uint64)
        roles = np.frombuffer(batch.role, dtype=np.uint8)
        seconds = np.frombuffer(batch.at_unix_ns, dtype="<i8") // NS
        answered = (roles == predict_pb2.CANARY) & (batch.version == version)
        if answered.any():
            canary_revisions.add(batch.revision)
        failed = roles == predict_pb2.FALLBACK
        baseline = (roles == predict_pb2.PRODUCTION) & (batch.version != version)
        for second in np.unique(seconds).tolist():
            columns = keys_by_second.setdefault((second, batch.revision), ([], [], []))
            for column, selected in zip(columns, (answered, failed, baseline), strict=True):
                column.append(keys[selected & (seconds == second)])
    # A FALLBACK in a revision without this canary is the failure of another version.
    times = sorted(key for key in keys_by_second if key[1] in canary_revisions)
    for time in times:
        answered_keys, failed_keys, baseline_keys = (
            np.concatenate(column) for column in keys_by_second[time]
        )
        failures = np.repeat([False, True], [len(answered_keys), len(failed_keys)])
        yield TrafficSecond(
            time[0] - times[0][0],
            share,
            _arm(np.concatenate([answered_keys, failed_keys]), failures),
            _arm(baseline_keys, np.zeros(len(baseline_keys), dtype=np.bool_)),
        )


def _arm(keys: NDArray[np.uint64], failed: NDArray[np.bool_]) -> ArmTraffic:
    calls = len(keys)
    never = np.zeros(calls, dtype=np.bool_)
    zeros = np.zeros(calls, dtype=np.int64)
    return ArmTraffic(
        keys=keys,
        failed=failed,
        nan=never,
        timed_out=never,
        latency_ns=zeros,
        champion_bin=zeros,
        bin=zeros,
        missing=0,
        outcomes=keys[:0],
    )
