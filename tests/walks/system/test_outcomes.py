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
from tests.walks.running_system import RunningSystem, poll_system_until

pytestmark = pytest.mark.walk

APART = (("grpc.use_local_subchannel_pool", 1),)


def call_rpc(address: str, method: str, request: Any, reply: Any) -> Any:  # noqa: ANN401  any message
    """Call once over a connection of its own, so that any worker may get it."""
    with grpc.insecure_channel(address, options=APART) as channel:
        raw = channel.unary_unary(f"/turnout.v1.Predictor/{method}")(
            request.SerializeToString(), timeout=5.0, wait_for_ready=True
        )
    return reply.FromString(raw)


def counted_outcomes(whole: RunningSystem) -> dict[tuple[str, str], float]:
    """Outcomes by (kind, worker slot), as Prometheus reads them."""
    with urllib.request.urlopen(whole.addresses.metrics) as page:
        lines = page.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("turnout_outcomes_total{"):
            labels, _, value = line.partition("} ")
            words = dict(part.split("=") for part in labels.partition("{")[2].split(","))
            found[json.loads(words["kind"]), json.loads(words["worker"])] = float(value)
    return found


def test_one_key_counts_once_whoever_is_told_and_whenever(running_system: RunningSystem) -> None:
    """20 connections over two workers: kept once; after kill -9 of both: known still."""
    running_system.wait_settled()
    address = running_system.addresses.gateway
    asked = PredictRequest(model=MODEL, rows=[Row(keys=["S1"], inputs=[1, 2, 3])])
    prediction = call_rpc(address, "Predict", asked, PredictReply)
    outcome = OutcomeRequest(
        prediction_id=prediction.prediction_id,
        name="churned",
        value=1,
        idempotency_key=f"walk/{prediction.prediction_id.hex()[:32]}",
    )
    told = [call_rpc(address, "ReportOutcome", outcome, OutcomeReply).duplicate for _ in range(20)]
    assert told == [False] + [True] * 19
    poll_system_until(
        lambda: (
            sum(
                n
                for (kind, _), n in counted_outcomes(running_system).items()
                if kind == "duplicate"
            )
            >= 19
        ),
        5.0,
        "19 duplicates counted",
    )
    slots = {slot for kind, slot in counted_outcomes(running_system) if kind == "duplicate"}
    assert slots == {"0", "1"}, f"only {slots} were told"

    victims = {row["pid"] for row in running_system.workers()}
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    poll_system_until(
        lambda: victims.isdisjoint(row["pid"] for row in running_system.workers()),
        10.0,
        "all replaced",
    )
    running_system.wait_settled()
    again = call_rpc(address, "ReportOutcome", outcome, OutcomeReply)
    assert again.duplicate
