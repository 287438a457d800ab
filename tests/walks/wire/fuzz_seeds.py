"""`python -m tests.walks.wire.fuzz_seeds FOLDER`: writes seeds for the fuzz targets.

Makes a folder in FOLDER for each target in ingress/fuzz, of its name.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from protos.open_inference_pb2 import ModelInferRequest
from protos.predict_pb2 import PredictRequest, Row
from tests.gateway.models.test_native_trees import LINE, boosted, chain, onnx_of
from tests.tiny_models import tiny_files
from tests.walks.wire.http2_frames import (
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


def models() -> list[bytes]:
    """ONNX files: boosting as training exports it, trees of every form, and another kind."""
    return [
        boosted(leaves=4),
        boosted(),
        onnx_of([LINE]),
        onnx_of([chain(31), LINE], base=-1.0),
        tiny_files()["model.onnx"],
    ]


def forests() -> list[bytes]:
    """Eight bytes a node, as the target reads them: trees of two, three and thirty-two leaves."""
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
    """Write them, a file each."""
    kinds = {
        "decoders": requests(),
        "frames": connections(),
        "trees": models(),
        "forests": forests(),
    }
    for name, seeds in kinds.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / name / f"{number:03d}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
