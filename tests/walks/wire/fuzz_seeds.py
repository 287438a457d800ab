"""`python -m tests.walks.wire.fuzz_seeds FOLDER` writes seeds for the fuzz targets.

Each target in ingress/fuzz gets a folder of its name in FOLDER.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from protos.open_inference_pb2 import ModelInferRequest
from protos.predict_pb2 import PredictRequest, Row
from tests.gateway.models.test_native_trees import STUMP, boosted, chain, onnx_of
from tests.tiny_models import tiny_files
from tests.walks.wire.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    call_header_block,
    raw_frame,
    raw_grpc_message,
    raw_header,
)

MODEL = "c"
"""The model that the targets serve: one entity, a number f0, a text f1."""
PATHS = ("/p", "/s", "/i", "/u", "/r")


def request_seeds() -> list[bytes]:
    """Return request messages of every form."""
    row, named = Row(keys=["S1"], inputs=[0.5, 0.0]), Row(keys=["S2"], named={"f0": 1.5})
    named.named_text["f1"] = "a"
    forms: list[PredictRequest | ModelInferRequest] = [
        PredictRequest(
            model=MODEL, rows=[row, named], sticky_key="S9", request_id="r", version="1"
        ),
        PredictRequest(model=MODEL, rows=[row], contract=7, criticality=2),
        PredictRequest(model="other", rows=[named]),
    ]
    raw = ModelInferRequest(model_name=MODEL, id="r")
    for name, datatype, width in (("keys", "BYTES", 1), ("inputs", "FP32", 2)):
        raw.inputs.add(name=name, datatype=datatype, shape=[2, width])
    raw.parameters["sticky_key"].string_param = "S9"
    typed = ModelInferRequest.FromString(raw.SerializeToString())
    typed.inputs[0].contents.bytes_contents[:] = [b"S1", b"S2"]
    typed.inputs[1].contents.fp32_contents[:] = [0.5] * 4
    raw.raw_input_contents.append(b"\x02\0\0\0S1\x02\0\0\0S2")
    raw.raw_input_contents.append(np.full(4, 0.5, np.float32).tobytes())
    return [form.SerializeToString() for form in [*forms, raw, typed]]


def connection_seeds() -> list[bytes]:
    """Return the frames that follow a connection's preface."""
    calls = []
    for path in PATHS:
        for body in request_seeds():
            headers = raw_frame(HEADERS, END_HEADERS, 1, call_header_block(path))
            calls.append(headers + raw_frame(DATA, END_STREAM, 1, raw_grpc_message(body)))
    many = raw_frame(HEADERS, END_HEADERS, 1, call_header_block("/s"))
    body = raw_grpc_message(request_seeds()[1])
    packed = raw_grpc_message(gzip.compress(request_seeds()[1]), compressed=1)
    more = ((b"grpc-encoding", b"gzip"), (b"grpc-timeout", b"1m"), (b"x-key-bin", b"AAEC"))
    block = call_header_block("/p", more)
    return [
        *calls,
        many + raw_frame(DATA, 0, 1, body * 5) + raw_frame(DATA, END_STREAM, 1, body),
        many + raw_frame(DATA, 0, 1, body[:7]) + raw_frame(RST_STREAM, 0, 1, bytes(4)),
        raw_frame(HEADERS, END_HEADERS, 1, block) + raw_frame(DATA, END_STREAM, 1, packed),
        raw_frame(HEADERS, 0, 1, block[:40]) + raw_frame(CONTINUATION, END_HEADERS, 1, block[40:]),
        raw_frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0") + raw_frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        raw_frame(PING, 0, 0, bytes(8)) * 5,
        raw_frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            call_header_block("/p") + raw_header(b"te", b"trailers"),
        ),
    ]


def model_seeds() -> list[bytes]:
    """Return ONNX files: boosting as training exports it, trees of every form, another model."""
    return [
        boosted(leaves=4),
        boosted(),
        onnx_of([STUMP]),
        onnx_of([chain(31), STUMP], base=-1.0),
        tiny_files()["model.onnx"],
    ]


def tree_seeds() -> list[bytes]:
    """Return trees of two, three and thirty-two leaves, eight bytes a node, as the target reads."""
    leaf = bytes([0x21, 0, 0, 0, 0, 0, 9, 0])
    split = bytes([0x22, 0, 1, 2, 1, 2, 0, 0])
    first = bytes([0x00]) + split[1:]
    forms = [
        first + leaf * 2,
        first + leaf + split + leaf * 2,
        first + (leaf + split) * 30 + leaf * 2,
    ]
    return [*forms, b"".join(forms), bytes([0x01]) + leaf[1:]]


def main(folder: Path) -> None:
    """Write each seed to a file of its own."""
    kinds = {
        "decoders": request_seeds(),
        "frames": connection_seeds(),
        "trees": model_seeds(),
        "forests": tree_seeds(),
    }
    for name, seeds in kinds.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / name / f"{number:03d}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
