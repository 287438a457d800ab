"""Damaged requests to a real worker behind the native ingress are refused with our own messages.

python -m pytest -m nightly tests/walks/wire/test_mutated_requests.py -s      # a million
"""

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from benchmarks.standalone_gateway import INPUTS, MODEL, standalone_gateway, write_gateway_folder
from protos.open_inference_pb2 import ModelInferRequest
from protos.predict_pb2 import PredictRequest, Row
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.walks.wire.http2_frames import (
    ACK,
    PING,
    PREDICT,
    WINDOW_UPDATE,
    RawConnection,
    call_header_block,
    grpc_status_and_message,
    raw_call,
    raw_frame,
)
from tests.walks.wire.request_mutations import mutated_requests

pytestmark = [pytest.mark.walk, NEEDS_NATIVE_INGRESS]

INFER = "/inference.GRPCInferenceService/ModelInfer"
OPEN_MAX = 32
CALLS_PER_CONNECTION = 20_000
ALLOWED = {0, 3, 5, 8, 9, 12}
"""OK, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED."""
INTERNAL_ERROR = re.compile(r"the gateway failed on this call \(error [0-9a-f]{8}\)")
"""For numbers near float32's end, from which the model itself makes an infinity."""
INTERNALS = re.compile(
    r"Traceback|panick|\.rs\b|\.py\b|site-packages|\w{3,}(?:Error|Exception)\b|\b0x[0-9a-f]{12}\b|nghttp2"
)
"""Text that only the gateway's internals could have written."""
NO_TABLE_WIDE_WINDOWS = b"\x00\x01" + bytes(4) + b"\x00\x04\x7f\xff\xff\xff"
"""SETTINGS: no header table, and stream windows that never fill."""


def predict_messages() -> list[bytes]:
    """Return real requests of every form that Predict takes."""
    row = Row(keys=["S1"], inputs=[0.5] * INPUTS)
    by_name = Row(keys=["S2"], named={f"f{position}": 1.5 for position in range(5)})
    with_text = Row(keys=["S3"], named_text={"f0": "basic"})
    forms = [
        PredictRequest(model=MODEL, rows=[row]),
        PredictRequest(model=MODEL, rows=[row] * 3, sticky_key="S9", request_id="r-1"),
        PredictRequest(model=MODEL, rows=[by_name], version="1", criticality=2),
        PredictRequest(model=MODEL, rows=[with_text], contract=7),
        PredictRequest(model="other", rows=[row]),
    ]
    return [form.SerializeToString() for form in forms]


def infer_messages() -> list[bytes]:
    """Return requests of ModelInfer: raw, typed, and those of the committed vectors."""
    raw = ModelInferRequest(model_name=MODEL, id="r-2")
    keys, inputs = raw.inputs.add(name="keys"), raw.inputs.add(name="inputs")
    keys.datatype, inputs.datatype = "BYTES", "FP32"
    keys.shape[:], inputs.shape[:] = [2, 1], [2, INPUTS]
    typed = ModelInferRequest.FromString(raw.SerializeToString())
    typed.inputs[0].contents.bytes_contents[:] = [b"S1", b"S2"]
    typed.inputs[1].contents.fp32_contents[:] = [0.5] * (2 * INPUTS)
    raw.raw_input_contents.append(b"\x02\0\0\0S1\x02\0\0\0S2")
    raw.raw_input_contents.append(np.full(2 * INPUTS, 0.5, np.float32).tobytes())
    committed = json.loads((Path(__file__).parents[2] / "vectors/open_inference.json").read_text())
    calls = [bytes.fromhex(call["message"]) for call in committed["calls"]]
    return [raw.SerializeToString(), typed.SerializeToString(), *calls]


class MutationSender(RawConnection):
    """One connection that has as many calls open as the server grants."""

    def __init__(self, port: int) -> None:
        super().__init__(port, settings=NO_TABLE_WIDE_WINDOWS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(raw_frame(WINDOW_UPDATE, 0, 0, (2**31 - 1 - 65_535).to_bytes(4, "big")))
        self.next_stream = 1
        self.open_messages: dict[int, bytes] = {}
        """Stream -> message of the calls that have not ended."""

    def send_calls(self, calls: list[tuple[bytes, bytes]]) -> None:
        """Send each (header block, message) as a call."""
        frames = []
        for header_block, message in calls:
            frames.append(raw_call(self.next_stream, message, header_block))
            self.open_messages[self.next_stream] = message
            self.next_stream += 2
        self.socket.settimeout(20.0)
        assert self.send(b"".join(frames)), "the connection was closed"

    def read_endings(self) -> Iterator[tuple[bytes, int | None, str]]:
        """Wait for bytes; yield (message, status, gRPC message) of each call that they end."""
        assert self.read(20.0), "the connection was closed"
        assert not self.goaway, self.goaway
        ended, self.ended_streams = self.ended_streams, {}
        for stream, headers in ended.items():
            yield self.open_messages.pop(stream), *grpc_status_and_message(headers)

    def on_frame(self, kind: int | None, flags: int, stream: int, payload: bytes) -> None:
        """Answer pings too."""
        if kind == PING and not flags & ACK:
            self.send(raw_frame(PING, ACK, 0, payload))
        super().on_frame(kind, flags, stream, payload)


def send_mutated(port: int, calls: int, seed: int, folder: str) -> Counter[int | None]:
    """Send *calls* damaged requests, half to each method; return how often each status came.

    folder  the gateway's folder, which no message may name.
    """
    supplies = cycle(
        [
            (call_header_block(PREDICT), mutated_requests(predict_messages(), seed)),
            (call_header_block(INFER), mutated_requests(infer_messages(), seed + 1)),
        ]
    )
    statuses: Counter[int | None] = Counter()
    left = calls
    while left:
        sender, share = MutationSender(port), min(left, CALLS_PER_CONNECTION)
        left -= share
        while share or sender.open_messages:
            # Send in bunches of at least half the streams.
            room = min(share, OPEN_MAX - len(sender.open_messages))
            if room > OPEN_MAX // 2 or room == share:
                sender.send_calls(
                    [
                        (block, next(bodies))
                        for _, (block, bodies) in zip(range(room), supplies, strict=False)
                    ]
                )
                share -= room
            # Check the status and message of every call that ended.
            for body, status, message in sender.read_endings():
                statuses[status] += 1
                known = status in ALLOWED or (status == 13 and INTERNAL_ERROR.fullmatch(message))
                assert known, (status, message, body.hex())
                assert folder not in message, message
                assert not INTERNALS.search(message), (message, body.hex())
        sender.close()
    return statuses


def run_mutations(folder: Path, calls: int, seed: int) -> Counter[int | None]:
    """Send damaged requests to a gateway of one worker, which must not be replaced meanwhile."""
    write_gateway_folder(folder)
    settings = {"workers": 1, "ingress": "native", "connection_age_s_max": 3_600.0}
    with standalone_gateway(folder, settings) as gateway:
        assert gateway.wait_settled(1)
        before = gateway.serving_pids()
        seen = send_mutated(gateway.port, calls, seed, str(folder))
        assert gateway.serving_pids() == before
        assert gateway.wait_settled(1)
    log = (folder / "gateway.log").read_text()
    assert "ERROR" not in log, log
    faults = [line for line in log.splitlines() if " fault " in line]
    assert all(line.endswith(" not_finite") for line in faults), faults
    return seen


def test_native_ingress_refuses_twenty_thousand_damaged_requests_with_our_messages(
    tmp_path: Path,
) -> None:
    """No crash, no UNKNOWN, no text of the gateway's internals; some requests are still valid."""
    seen = run_mutations(tmp_path, 20_000, seed=7)
    assert seen[0] > 1_000
    assert seen[3] > 5_000


@pytest.mark.nightly
def test_native_ingress_refuses_a_million_damaged_requests(tmp_path: Path) -> None:
    """The full length of the walk above."""
    seen = run_mutations(tmp_path, 1_000_000, seed=1)
    print(dict(seen))  # noqa: T201  the nightly's figures
    assert sum(seen.values()) == 1_000_000
