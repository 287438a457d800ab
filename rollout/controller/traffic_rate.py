"""How many calls each model answers, from the windows everybody sends: the last minute's."""

from collections import defaultdict

from protos import window_pb2

MINUTE_S = 60
SETTLE_S = 2
"""The newest seconds are left out: not every worker has told of them."""
ANSWERING_ARMS = (window_pb2.ARM_PRODUCTION, window_pb2.ARM_CANARY, window_pb2.ARM_STANDBY)


class TrafficRate:
    """Calls answered, by model and second."""

    def __init__(self) -> None:
        self._calls: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._newest = 0

    def add_batch(self, batch: window_pb2.WindowBatch) -> None:
        """Add a batch's windows; a batch sent twice counts twice, which a minute forgets."""
        self._newest = max(self._newest, batch.sent_unix_ns // 1_000_000_000)
        for window in batch.windows:
            if window.arm in ANSWERING_ARMS:
                self._calls[window.model][window.second] += window.calls.answered

    def calls_a_second(self, model: str) -> float:
        """Return the mean over the last minute, or since the first call in it; 0: none."""
        calls = self._calls.get(model, {})
        last = self._newest - SETTLE_S
        for second in [second for second in calls if second <= last - MINUTE_S]:
            del calls[second]
        told = {second: count for second, count in calls.items() if second <= last}
        return sum(told.values()) / (last - min(told) + 1) if told else 0.0
