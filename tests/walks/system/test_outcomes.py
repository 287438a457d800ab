"""One outcome is reported to every worker of a host, before and after all of them are killed."""

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

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


def call_rpc(address: str, method: str, request: Any, reply: Any) -> Any:  # noqa: ANN401  any message
    """Call once over a new connection, so that any worker may get the call."""
    with grpc.insecure_channel(address, options=OWN_CONNECTION) as channel:
        raw = channel.unary_unary(f"/turnout.v1.Predictor/{method}")(
            request.SerializeToString(), timeout=5.0, wait_for_ready=True
        )
    return reply.FromString(raw)


def counted_outcomes(system: RunningSystem) -> dict[tuple[str, str], float]:
    """Return turnout_outcomes_total by (kind, worker slot) from the metrics page."""
    with urllib.request.urlopen(system.addresses.metrics) as page:
        lines = page.read().decode().splitlines()
    counts = {}
    for line in lines:
        if line.startswith("turnout_outcomes_total{"):
            labels, _, value = line.partition("} ")
            fields = dict(part.split("=") for part in labels.partition("{")[2].split(","))
            counts[json.loads(fields["kind"]), json.loads(fields["worker"])] = float(value)
    return counts


def test_outcome_with_one_idempotency_key_counts_once_over_workers_and_restarts(
    running_system: RunningSystem,
) -> None:
    """It is reported over 20 connections to two workers, and again after both are killed."""
    # Make a prediction, and an outcome for it with an idempotency key.
    running_system.wait_settled()
    address = running_system.addresses.gateway
    request = PredictRequest(model=MODEL, rows=[Row(keys=["S1"], inputs=[1, 2, 3])])
    prediction = call_rpc(address, "Predict", request, PredictReply)
    outcome = OutcomeRequest(
        prediction_id=prediction.prediction_id,
        name="churned",
        value=1,
        idempotency_key=f"walk/{prediction.prediction_id.hex()[:32]}",
    )
    # Report the outcome 20 times: the first counts, and both workers know it from then on.
    duplicates = [
        call_rpc(address, "ReportOutcome", outcome, OutcomeReply).duplicate for _ in range(20)
    ]
    assert duplicates == [False] + [True] * 19
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
    assert slots == {"0", "1"}, f"only {slots} got the outcome"

    # New workers read the keys from disk.
    killed_pids = {row["pid"] for row in running_system.workers()}
    for pid in killed_pids:
        os.kill(pid, signal.SIGKILL)
    poll_system_until(
        lambda: killed_pids.isdisjoint(row["pid"] for row in running_system.workers()),
        10.0,
        "all workers are replaced",
    )
    running_system.wait_settled()
    again = call_rpc(address, "ReportOutcome", outcome, OutcomeReply)
    assert again.duplicate
