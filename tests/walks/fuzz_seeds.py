"""`python -m tests.walks.fuzz_seeds FOLDER`: real requests and frames to begin fuzzing with.

Makes FOLDER/decoders and FOLDER/frames, for the targets of those names in ingress/fuzz.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from protos.open_inference_pb2 import ModelInferRequest
from protos.predict_pb2 import PredictRequest, Row
from tests.walks.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST,
    SETTINGS,
    WINDOW,
    frame,
    headers,
    literal,
    message,
)

MODEL = "c"
"""What the targets serve: one entity, inputs f0 and f1, the second in words."""
PATHS = ("/p", "/s", "/i", "/u", "/r")


def requests() -> list[bytes]:
    """Messages of every form."""
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


def connections() -> list[bytes]:
    """Frames behind a greeting."""
    made = []
    for path in PATHS:
        for body in requests():
            begun = frame(HEADERS, END_HEADERS, 1, headers(path))
            made.append(begun + frame(DATA, END_STREAM, 1, message(body)))
    many = frame(HEADERS, END_HEADERS, 1, headers("/s"))
    body = message(requests()[1])
    packed = message(gzip.compress(requests()[1]), compressed=1)
    more = ((b"grpc-encoding", b"gzip"), (b"grpc-timeout", b"1m"), (b"x-key-bin", b"AAEC"))
    block = headers("/p", more)
    return [
        *made,
        many + frame(DATA, 0, 1, body * 5) + frame(DATA, END_STREAM, 1, body),
        many + frame(DATA, 0, 1, body[:7]) + frame(RST, 0, 1, bytes(4)),
        frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, packed),
        frame(HEADERS, 0, 1, block[:40]) + frame(CONTINUATION, END_HEADERS, 1, block[40:]),
        frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0") + frame(WINDOW, 0, 0, b"\0\0\0\1"),
        frame(PING, 0, 0, bytes(8)) * 5,
        frame(HEADERS, END_HEADERS | END_STREAM, 1, headers("/p") + literal(b"te", b"trailers")),
    ]


def main(folder: Path) -> None:
    """Write them, a file each."""
    for name, seeds in (("decoders", requests()), ("frames", connections())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / name / f"{number:03d}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
