"""Served calls, as a gateway's journal kept them, as the seconds of two arms.

The journal holds who was answered, by which version, in which role. A call that production
answered in the candidate's place (FALLBACK) is a failure of the candidate; latencies, timeouts
and production's score of the same row are not in it, so a replay judges failures only.
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

    share  the candidate's configured share of the two; the journal does not tell.
    """
    told: dict[tuple[int, int], tuple[list[NDArray[np.uint64]], ...]] = {}
    its_own: set[int] = set()
    """Revisions in which it was the canary: a FALLBACK of another one's is not its failure."""
    for batch in batches:
        if batch.model != model:
            continue
        keys = np.frombuffer(batch.key_hash, dtype="<u8").astype(np.uint64)
        roles = np.frombuffer(batch.role, dtype=np.uint8)
        seconds = np.frombuffer(batch.at_unix_ns, dtype="<i8") // NS
        mine = (roles == predict_pb2.CANARY) & (batch.version == version)
        if mine.any():
            its_own.add(batch.revision)
        failed = roles == predict_pb2.FALLBACK
        others = (roles == predict_pb2.PRODUCTION) & (batch.version != version)
        for second in np.unique(seconds).tolist():
            arms = told.setdefault((second, batch.revision), ([], [], []))
            for kept, hit in zip(arms, (mine, failed, others), strict=True):
                kept.append(keys[hit & (seconds == second)])
    times = sorted(key for key in told if key[1] in its_own)
    for time in times:
        mine, failed, others = (np.concatenate(keys) for keys in told[time])
        fate = np.repeat([False, True], [len(mine), len(failed)])
        yield TrafficSecond(
            time[0] - times[0][0],
            share,
            _arm(np.concatenate([mine, failed]), fate),
            _arm(others, np.zeros(len(others), dtype=np.bool_)),
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
