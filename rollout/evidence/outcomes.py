"""What became of predictions: whose keys had the good outcome."""

from collections.abc import Sequence

from protos import predict_pb2, window_pb2
from rollout.policy.policy import GoodOutcome


def good_outcome_keys(
    windows: Sequence[window_pb2.Window], good: GoodOutcome, version: str, baseline: str
) -> tuple[set[int], set[int]]:
    """Return the keys with a good report that fell to the candidate, and to the baseline.

    A key belongs to the arm that was to answer it: a version that leaves its calls to the other
    one is judged by what became of these, too. Whoever named the version in the call says
    nothing about the split.
    """
    keys: dict[str, set[int]] = {version: set(), baseline: set()}
    for window in windows:
        answered = window.version
        if answered not in keys:
            continue
        for reports in window.outcomes:
            role = reports.role
            if reports.name != good.name or role == predict_pb2.PINNED:
                continue
            drawn = answered
            if role == predict_pb2.FALLBACK:
                drawn = version if answered == baseline else baseline
            told = zip(reports.key_hash[:], reports.value[:], strict=True)
            keys[drawn].update([key for key, value in told if good.is_good(value)])
    return keys[version], keys[baseline]
