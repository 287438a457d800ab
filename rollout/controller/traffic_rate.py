"""Measures how many calls a second each model answers, for forecasts.

The windows of all gateways are counted, whether or not a rollout is under way.
"""

from collections import defaultdict

from protos import window_pb2

MINUTE_S = 60
FORGET_S = 2 * MINUTE_S
SETTLE_S = 2
"""The newest seconds are left out, because not every worker has sent its windows of them."""
ANSWERING_ARMS = (window_pb2.ARM_PRODUCTION, window_pb2.ARM_CANARY, window_pb2.ARM_STANDBY)


class TrafficRate:
    """Answered calls by model and second."""

    def __init__(self) -> None:
        self._calls: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._newest_second = 0

    def add_batch(self, batch: window_pb2.WindowBatch) -> None:
        """Add the windows of a batch.

        A batch that a gateway sends again is counted again. The rate is for people, and a minute
        later the error is gone.
        """
        if not batch.sent_unix_ns:
            return  # of a worker whose clock is not trusted
        newest = batch.sent_unix_ns // 1_000_000_000
        # A clock that was far ahead, or set back, must not hide the calls of today.
        if newest > self._newest_second or newest < self._newest_second - FORGET_S:
            self._newest_second = newest
            self._forget_before(newest - FORGET_S)
        for window in batch.windows:
            if window.arm in ANSWERING_ARMS:
                self._calls[window.model][window.second] += window.calls.answered

    def _forget_before(self, second: int) -> None:
        for calls in self._calls.values():
            for old in [known for known in calls if known < second]:
                del calls[old]

    def calls_a_second(self, model: str) -> float:
        """Return the mean over the last minute, or since the first call in it; 0 without calls."""
        calls = self._calls.get(model, {})
        last = self._newest_second - SETTLE_S
        for second in [second for second in calls if second <= last - MINUTE_S]:
            del calls[second]
        settled = {second: count for second, count in calls.items() if second <= last}
        return sum(settled.values()) / (last - min(settled) + 1) if settled else 0.0
