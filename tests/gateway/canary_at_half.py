"""A deployment that gives half the keys to a canary, its windows, and scorers that are slow."""

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scorer
from protos import window_pb2
from protos.predict_pb2 import PredictReply
from registry.types import Deployment, split_bucket
from tests.gateway.gateway_fixture import SALT, GatewayFixture, predict_request

PRODUCTION_ONLY = Deployment(
    model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
)
CANARY_AT_HALF = replace(PRODUCTION_ONLY, revision=2, canary="2", canary_bp=5_000)
DOUBLED_WEIGHTS = np.array([[0.2], [0.4], [0.6]], dtype=np.float32)
"""Weights of a candidate whose scores are twice those of production."""
CUSTOMER_KEYS = [f"S{n}" for n in range(60)]


def canary_keys(share_bp: int = 5_000) -> set[str]:
    """Return the CUSTOMER_KEYS that the split gives to the canary."""
    return {key for key in CUSTOMER_KEYS if split_bucket(SALT, key.encode()) < share_bp}


async def predict_all_keys(gateway: GatewayFixture, first: float = 1.0) -> dict[str, PredictReply]:
    """Make one call for each of CUSTOMER_KEYS at the same time; return key -> reply."""
    replies = await asyncio.gather(
        *(gateway.predict(predict_request(first, 2, 3, key=key)) for key in CUSTOMER_KEYS)
    )
    return dict(zip(CUSTOMER_KEYS, replies, strict=True))


def closed_windows(gateway: GatewayFixture) -> dict[str, window_pb2.Window]:
    """Close all windows and return arm -> one window, with counts added and records joined."""
    gateway.recorder.fold()
    by_arm: dict[str, window_pb2.Window] = {}
    for window in gateway.windows.close_windows(0, everything=True):
        name = window_pb2.Arm.Name(window.arm).removeprefix("ARM_")
        merged = by_arm.setdefault(name, window_pb2.Window())
        for field, value in window.calls.ListFields():
            setattr(merged.calls, field.name, getattr(merged.calls, field.name) + value)
        for field, value in window.pairs.ListFields():
            if field.name in ("pairs", "flips", "faulty", "absolute_sum"):
                setattr(merged.pairs, field.name, getattr(merged.pairs, field.name) + value)
        merged.records.extend(window.records)
        merged.rows += window.rows
        merged.last_bad_unix_ns = max(merged.last_bad_unix_ns, window.last_bad_unix_ns)
    return by_arm


class HungScorer:
    """A scorer that does not return before `released` is set."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def run(self, matrix: np.ndarray) -> np.ndarray:
        """Wait 10 s at most, and return (B, 1) zeros."""
        assert self.released.wait(10.0)
        return np.zeros((len(matrix), 1), dtype=np.float32)


class BusyScorer:
    """A scorer that computes for 60 ms before the real one runs."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sort until the thread has used 60 ms of processor time, and score."""
        until_ns = time.thread_time_ns() + 60_000_000
        while time.thread_time_ns() < until_ns:
            np.sort(np.arange(1_000)[::-1])
        return self._scorer.run(matrix)


class SlowScorer:
    """A scorer that waits for 60 ms before the real one runs."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Wait for 60 ms without processor time, and score."""
        threading.Event().wait(0.060)
        return self._scorer.run(matrix)
