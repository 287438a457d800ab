"""Committed bytes that every implementation must read alike: columns, windows, deployments."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from gateway.columns import ModelShape
from gateway.status import RefusedError
from gateway.transport.admission import Admission
from gateway.transport.call_queue import CallQueue
from gateway.transport.decode import DecodeLimits, decode_predict, parse_predict
from protos.registry_pb2 import Deployment
from protos.window_pb2 import WindowBatch
from registry import types

VECTORS = Path(__file__).parents[1] / "vectors"
COLUMNS: dict[str, Any] = json.loads((VECTORS / "columns.json").read_text(encoding="utf-8"))
SHAPE = ModelShape(
    **{
        **COLUMNS["shape"],
        "input_names": tuple(COLUMNS["shape"]["input_names"]),
        "dictionaries": tuple(map(tuple, COLUMNS["shape"]["dictionaries"])),
        "input_defaults": tuple(COLUMNS["shape"]["input_defaults"]),
    }
)
LIMITS = DecodeLimits(**COLUMNS["limits"])


def test_call_queue_returns_the_committed_columns() -> None:
    """Four messages that wait together become one batch."""
    queue = CallQueue(Admission(1_000, 100, 100))
    for index, call in enumerate(COLUMNS["calls"]):
        decoded = decode_predict(
            parse_predict(bytes.fromhex(call["message"])), {"nba": SHAPE}, LIMITS
        )
        queue.admit(decoded, arrived_ns=1_000 + index, deadline_ns=10**9 + index)
    batch = queue.pop_calls(256)
    assert batch is not None

    expected = dict(COLUMNS["columns"])
    inputs = np.frombuffer(bytes.fromhex(expected.pop("inputs_f32_le")), "<f4")
    assert batch.inputs.tobytes() == inputs.tobytes()
    for name in ("sticky", "request_ids", "entity_ids"):
        assert getattr(batch, name).hex() == expected.pop(name), name
    assert [list(pin) for pin in batch.pins] == expected.pop("pins")
    assert batch.model == expected.pop("model")
    for name, column in expected.items():
        assert getattr(batch, name).tolist() == column, name


@pytest.mark.parametrize("bad", COLUMNS["refused"], ids=lambda bad: bad["why"])
def test_decode_predict_refuses_bad_messages_with_the_committed_code(bad: dict[str, Any]) -> None:
    """The native decoder is tested with the same vectors."""
    with pytest.raises(RefusedError) as refused:
        decode_predict(parse_predict(bytes.fromhex(bad["message"])), {"nba": SHAPE}, LIMITS)
    assert int(refused.value.refusal.code) == bad["code"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("window_bytes", WindowBatch), ("deployment", Deployment)],
    ids=["window", "deployment"],
)
def test_proto_message_reads_and_writes_the_committed_bytes(name: str, kind: type[Message]) -> None:
    """Field numbers and types stay, so that old bytes keep their meaning."""
    vector = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    message = kind.FromString(bytes.fromhex(vector["bytes"]))
    assert MessageToDict(message) == vector["says"]
    assert message.SerializeToString(deterministic=True).hex() == vector["bytes"]


def test_registry_deployment_round_trips_the_proto_message() -> None:
    """Nothing is lost from message to dataclass and back."""
    vector = json.loads((VECTORS / "deployment.json").read_text(encoding="utf-8"))
    message = Deployment.FromString(bytes.fromhex(vector["bytes"]))
    assert types.Deployment.from_proto(message).to_proto() == message
