"""F9, F16: outcome reports move no verdict alone, swallow no other report and fill no disk."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.predict_pb2 import (
    PRODUCTION,
    OutcomeReply,
    OutcomeRequest,
    PredictReply,
    PredictRequest,
    Row,
)
from tests.walks.identified_system import MODEL, IdentifiedSystem
from tests.walks.running_system import RunningSystem, turnout_up

pytestmark = pytest.mark.walk

POLICY = """
name = "sold"
base = "drill"
failure_bar = 0.01

[[canary]]
share_bp = 5000
bake_s = 86400

[models.tiny.outcome]
name = "accepted"
at_least = 1
"""


class Stranger:
    """A caller without a token."""

    def __init__(self, gateway: str) -> None:
        self.channel = grpc.insecure_channel(gateway)
        prefix = "/turnout.v1.Predictor/"
        self._predict = self.channel.unary_unary(
            prefix + "Predict", PredictRequest.SerializeToString, PredictReply.FromString
        )
        self._report = self.channel.unary_unary(
            prefix + "ReportOutcome", OutcomeRequest.SerializeToString, OutcomeReply.FromString
        )

    def predict(self, key: str) -> PredictReply:
        """Predict for one customer."""
        request = PredictRequest(model=MODEL, rows=[Row(keys=[key], inputs=[1, 2, 3])])
        reply: PredictReply = self._predict(request, timeout=5.0)
        return reply

    def report(self, **fields: Any) -> OutcomeReply:  # noqa: ANN401  any fields of the message
        """Report one outcome."""
        request = OutcomeRequest(**{"name": "accepted", "value": 1.0, **fields})
        reply: OutcomeReply = self._report(request, timeout=5.0)
        return reply

    def refusal(self, **fields: Any) -> grpc.StatusCode:  # noqa: ANN401  any fields of the message
        """Report an outcome that must be refused; return its status."""
        with pytest.raises(grpc.RpcError) as refused:
            self.report(**fields)
        code: grpc.StatusCode = refused.value.code()
        return code


@pytest.fixture
def stranger(attacked_system: IdentifiedSystem) -> Iterator[Stranger]:
    """A stranger at the attacked system's gateway."""
    caller = Stranger(attacked_system.system.addresses.gateway)
    with caller.channel:
        yield caller


@pytest.mark.attack("F9")
def test_idempotency_key_of_another_swallows_nothing(stranger: Stranger) -> None:
    """A stranger reports under the idempotency key that a victim will use."""
    own, victims = stranger.predict("mine"), stranger.predict("victim")
    assert not stranger.report(
        prediction_id=own.prediction_id, idempotency_key="order-1", value=0.0
    ).duplicate
    # The victim's report is kept, and its retry is known.
    order = {"prediction_id": victims.prediction_id, "idempotency_key": "order-1"}
    assert not stranger.report(**order).duplicate
    assert stranger.report(**order).duplicate
    # Nobody is told OK for another content.
    assert stranger.refusal(**order, value=0.5) == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.attack("F16")
def test_report_beyond_every_bound_is_refused(stranger: Stranger) -> None:
    """A stranger reports absurd values, times, rows and names beside a prediction id."""
    prediction_id = stranger.predict("mine").prediction_id
    for fields in (
        {"value": 1e308},
        {"event_time_ms": 2**62},
        {"event_time_ms": -(2**62)},
        {"event_time_ms": int(time.time() * 1e3) - 86_400_000},
        {"row": 4_294_967_295},
        {"row": 1},  # the call had one row
        {"model": "\x1b[31m"},
        {"keys": ["k"] * 100},
        {"name": "\x1b[31m"},
    ):
        code = stranger.refusal(prediction_id=prediction_id, **fields)
        assert code == grpc.StatusCode.INVALID_ARGUMENT, fields


@pytest.mark.attack("F16")
def test_reports_do_not_fill_the_disk(attacked_system: IdentifiedSystem) -> None:
    """A stranger sends 110 reports of 3 MB each."""
    stranger = Stranger(attacked_system.system.addresses.gateway)
    prediction_id = stranger.predict("mine").prediction_id
    keys = ["k" * 30] * 100_000
    for _ in range(10):
        code = stranger.refusal(prediction_id=prediction_id, keys=keys)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    # What may be kept of a stranger is bounded by name_bytes_max and the budget.
    stranger.report(prediction_id=prediction_id, name="n" * 128, idempotency_key="k" * 128)
    segments = list((attacked_system.system.folder / "gateway" / "journal").glob("outcomes-*"))
    assert segments
    assert sum(segment.stat().st_size for segment in segments) < 1_000_000


@pytest.fixture
def judged_system(tmp_path: Path) -> Iterator[RunningSystem]:
    """A system whose policy judges by outcomes and trusts nobody alone."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "sold.toml").write_text(POLICY)
    with turnout_up(tmp_path / "state", "--policies", str(tmp_path / "policies")) as system:
        label = system.register(MODEL, tmp_path / "one")
        system.approve(MODEL, label, "initial")
        system.deploy(MODEL, label)
        yield system


@pytest.mark.attack("F9")
def test_one_caller_does_not_roll_back_by_outcomes(
    judged_system: RunningSystem, tmp_path: Path
) -> None:
    """A stranger reports production's good outcomes only, to roll back a healthy version."""
    label = judged_system.register(MODEL, tmp_path / "two")
    judged_system.approve(MODEL, label, "sold@tiny")
    judged_system.turnout(
        "rollout", "start", MODEL, label, "--policy", "sold", "--reason", "healthy"
    )
    stranger, number, give_up = Stranger(judged_system.addresses.gateway), 0, time.monotonic() + 60
    status: dict[str, Any] = {}
    with stranger.channel:
        # Until the evidence of all reports is far beyond the threshold of a rollback.
        while status.get("log_e_max", 0.0) < 20.0 and time.monotonic() < give_up:
            for _ in range(200):
                number += 1
                reply = stranger.predict(f"c{number}")
                if reply.role == PRODUCTION:
                    stranger.report(prediction_id=reply.prediction_id)
            rollout = judged_system.turnout("rollout", "status", MODEL)
            status = next(row for row in rollout["evidence"] if row["metric"] == "outcome")
    assert status["log_e_max"] >= 20.0 > status["log_threshold"]
    # The rollout is held, and the reason names the caller and its share.
    assert rollout["stage"] == "CANARY_STAGE", rollout["reason"]
    assert rollout["verdict"] == "HOLD"
    assert "without those of the caller 'anonymous' (anonymous 100%)" in rollout["reason"]
