"""One outcome, told to every worker of a host, before and after all of them were killed."""

import json
import os
import signal
import urllib.request
from typing import Any

import grpc
import pytest

from protos.predict_pb2 import OutcomeReply, OutcomeRequest, PredictReply, PredictRequest, Row
from tests.walks.conftest import MODEL
from tests.walks.running_system import Whole, until

pytestmark = pytest.mark.walk

APART = (("grpc.use_local_subchannel_pool", 1),)


def call(address: str, method: str, request: Any, reply: Any) -> Any:  # noqa: ANN401  any message
    """Call once over a connection of its own, so that any worker may get it."""
    with grpc.insecure_channel(address, options=APART) as channel:
        raw = channel.unary_unary(f"/turnout.v1.Predictor/{method}")(
            request.SerializeToString(), timeout=5.0, wait_for_ready=True
        )
    return reply.FromString(raw)


def counted(whole: Whole) -> dict[tuple[str, str], float]:
    """Outcomes by (kind, worker slot), as Prometheus reads them."""
    with urllib.request.urlopen(whole.running.metrics) as page:
        lines = page.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("turnout_outcomes_total{"):
            labels, _, value = line.partition("} ")
            words = dict(part.split("=") for part in labels.partition("{")[2].split(","))
            found[json.loads(words["kind"]), json.loads(words["worker"])] = float(value)
    return found


def test_one_key_counts_once_whoever_is_told_and_whenever(whole: Whole) -> None:
    """20 connections over two workers: kept once; after kill -9 of both: known still."""
    whole.settled()
    address = whole.running.gateway
    asked = PredictRequest(model=MODEL, rows=[Row(keys=["S1"], inputs=[1, 2, 3])])
    prediction = call(address, "Predict", asked, PredictReply)
    outcome = OutcomeRequest(
        prediction_id=prediction.prediction_id,
        name="churned",
        value=1,
        idempotency_key=f"walk/{prediction.prediction_id.hex()[:32]}",
    )
    told = [call(address, "ReportOutcome", outcome, OutcomeReply).duplicate for _ in range(20)]
    assert told == [False] + [True] * 19
    until(
        lambda: sum(n for (kind, _), n in counted(whole).items() if kind == "duplicate") >= 19,
        5.0,
        "19 duplicates counted",
    )
    slots = {slot for kind, slot in counted(whole) if kind == "duplicate"}
    assert slots == {"0", "1"}, f"only {slots} were told"

    victims = {row["pid"] for row in whole.workers()}
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: victims.isdisjoint(row["pid"] for row in whole.workers()), 10.0, "all replaced")
    whole.settled()
    again = call(address, "ReportOutcome", outcome, OutcomeReply)
    assert again.duplicate
