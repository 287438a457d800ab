"""ModelInfer of the Open Inference Protocol: decodes requests and encodes replies. Pure.

The first dimension of each tensor is the row (docs/calling.md): `keys` BYTES [-1, E] and `inputs`
FP32 [-1, R] in, `scores` FP32 [-1, K] out, raw when the request was raw. Any other tensor is
refused by name. The native server has the same error messages, to the byte (ingress/src/infer.rs).
"""

import struct
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from features.entity_ids import check_entity_id
from features.errors import EntityIdError
from gateway.columns import ModelShape
from gateway.transport.decode import (
    DecodedCall,
    DecodeLimits,
    check_finite,
    check_rows,
    check_text,
    invalid_argument,
    shape_of,
)
from gateway.transport.protobuf_scan import ProtobufScanError, bytes_outside_field
from protos.open_inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from protos.predict_pb2 import PredictReply, Role

Tensor = ModelInferRequest.InferInputTensor
ReplyEncoder = Callable[[PredictReply], bytes]
"""Turns a reply into the bytes of the caller's protocol."""

KEYS, INPUTS, SCORES = "keys", "inputs", "scores"
DATATYPES = {KEYS: "BYTES", INPUTS: "FP32"}
CONTENTS = {KEYS: "bytes_contents", INPUTS: "fp32_contents"}
PARAMETERS = ("sticky_key", "request_id")
RAW_FIELD = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
FIELDS_MAX = 64
"""Top-level fields of a large request: tensors, an output, their contents, some parameters."""
ROWS_MAX = 2**31 - 1
"""A shape with more rows is refused, because products with it could overflow."""
NAME_SHOWN_MAX = 40
"""Characters of an unknown name that a message shows."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class ParsedInfer:
    """A ModelInfer that passed every check: the call, and the encoder of its reply."""

    call: DecodedCall
    encode: ReplyEncoder


def parse_infer(message: bytes, typed_bytes_max: int) -> ModelInferRequest:
    """Parse bytes; RefusedError INVALID_ARGUMENT when they are no ModelInferRequest.

    typed_bytes_max  bytes outside raw_input_contents; checked before the message is parsed.
    """
    try:
        if len(message) > typed_bytes_max:
            typed_bytes = bytes_outside_field(message, RAW_FIELD, FIELDS_MAX)
            if typed_bytes > typed_bytes_max:
                raise invalid_argument(
                    f"{typed_bytes} bytes of the message are outside raw_input_contents; typed "
                    f"contents are taken up to {typed_bytes_max} (typed_contents_bytes_max): send "
                    "the tensors raw"
                )
        return ModelInferRequest.FromString(message)
    except (DecodeError, ProtobufScanError):
        raise invalid_argument(
            f"{len(message)} bytes are not an inference.ModelInferRequest; names are UTF-8"
        ) from None


def decode_infer(
    request: ModelInferRequest, shapes: Mapping[str, ModelShape], limits: DecodeLimits
) -> ParsedInfer:
    """Check a request against its model's shape and return its values.

    Raises RefusedError for each kind of bad request; the message names the tensor.
    """
    # Which tensors are sent, and how many rows they have.
    shape = shape_of(request.model_name, shapes)
    _check_outputs(request)
    tensors = _tensors_by_name(request, shape)
    rows = _row_count({name: tensor for name, (tensor, _) in tensors.items()}, shape)
    # Their values, from raw or typed contents.
    raw = bool(request.raw_input_contents)
    ids: list[bytes] = []
    values: list[float] = []
    if KEYS in tensors:
        tensor, blob = tensors[KEYS]
        count = rows * shape.entities
        keys = _raw_keys(blob, count) if raw else tensor.contents.bytes_contents
        ids = _ids(_check_count(KEYS, keys, count), shape)
    if INPUTS in tensors:
        tensor, blob = tensors[INPUTS]
        count = rows * len(shape.input_names)
        numbers = _raw_inputs(blob, count) if raw else tensor.contents.fp32_contents
        values = list(_check_count(INPUTS, numbers, count))
    # What the parameters and the request's own fields say.
    parameters = _parameters(request)
    check_text("id", request.id, limits.request_id_bytes_max)
    request_id = parameters.get("request_id", request.id)
    call = DecodedCall(
        model=shape.model,
        rows=rows,
        sticky=check_text("sticky_key", parameters.get("sticky_key", ""), limits.name_bytes_max),
        request_id=check_text("request_id", request_id, limits.request_id_bytes_max),
        pin=check_text("model_version", request.model_version, limits.name_bytes_max).decode(),
        criticality=0,
        ids=ids,
        inputs=values,
        nan_inputs=check_finite(values, shape),
    )
    return ParsedInfer(call, partial(encode_infer_reply, request_id=request.id, raw=raw))


def encode_infer_reply(reply: PredictReply, *, request_id: str, raw: bool) -> bytes:
    """Encode *reply* as a ModelInferResponse.

    request_id  the request's `id`, echoed.
    raw         whether scores go into raw_output_contents, as little-endian float32, or into
                fp32_contents.
    """
    response = ModelInferResponse(
        model_name=reply.model, model_version=reply.version, id=request_id
    )
    response.parameters["role"].string_param = Role.Name(reply.role).lower()
    response.parameters["prediction_id"].string_param = b64encode(reply.prediction_id).decode()
    response.parameters["holdout"].bool_param = reply.holdout
    outputs = max(reply.outputs, 1)
    scores = response.outputs.add(
        name=SCORES, datatype="FP32", shape=[len(reply.scores) // outputs, outputs]
    )
    if raw:
        response.raw_output_contents.append(np.array(reply.scores, dtype="<f4").tobytes())
    else:
        scores.contents.fp32_contents.extend(reply.scores)
    return response.SerializeToString()


def tensor_widths(shape: ModelShape) -> dict[str, int]:
    """Return the width of each tensor that a model takes; tensors of width 0 are left out."""
    widths = {KEYS: shape.entities, INPUTS: len(shape.input_names)}
    return {name: width for name, width in widths.items() if width}


def _tensors_by_name(
    request: ModelInferRequest, shape: ModelShape
) -> dict[str, tuple[Tensor, bytes]]:
    """Return each tensor with its raw contents (empty when typed), by name.

    Raises RefusedError for an unknown, repeated or missing tensor, a wrong datatype, parameters,
    and contents in the wrong field.
    """
    expected = tensor_widths(shape)
    blobs = request.raw_input_contents
    if blobs and len(blobs) != len(request.inputs):
        raise invalid_argument(
            f"raw_input_contents has {len(blobs)} items for {len(request.inputs)} tensors; send "
            "one a tensor, in their order"
        )
    # Each tensor by itself.
    tensors: dict[str, tuple[Tensor, bytes]] = {}
    for index, tensor in enumerate(request.inputs):
        name = tensor.name
        if name not in expected:
            raise invalid_argument(
                f"tensor {quote_name(name)} is none of model {shape.model!r}; it takes "
                f"{list(expected)}"
            )
        if name in tensors:
            raise invalid_argument(f"tensor {name!r} is sent twice")
        if tensor.datatype != DATATYPES[name]:
            raise invalid_argument(
                f"tensor {name!r} has datatype {quote_name(tensor.datatype)}; it is "
                f"{DATATYPES[name]}"
            )
        if tensor.parameters:
            raise invalid_argument(
                f"tensor {name!r} has {len(tensor.parameters)} parameters; none is known"
            )
        _check_contents(tensor, raw=bool(blobs))
        tensors[name] = (tensor, blobs[index] if blobs else b"")
    # All that the model takes must be there.
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise invalid_argument(
            f"tensor {missing[0]!r} is not sent; model {shape.model!r} takes {list(expected)}"
        )
    return tensors


def _check_contents(tensor: Tensor, *, raw: bool) -> None:
    """Raise RefusedError for contents in the wrong field, or both typed and raw."""
    fields = [field.name for field, _ in tensor.contents.ListFields()]
    if raw and fields:
        raise invalid_argument(
            f"tensor {tensor.name!r} has {fields[0]} and raw_input_contents; send one kind"
        )
    wrong_fields = [name for name in fields if name != CONTENTS[tensor.name]]
    if wrong_fields:
        raise invalid_argument(
            f"tensor {tensor.name!r} has {wrong_fields[0]}; {tensor.datatype} values go into "
            f"{CONTENTS[tensor.name]}"
        )


def _row_count(tensors: Mapping[str, Tensor], shape: ModelShape) -> int:
    """Return the number of rows, which is the same in all tensors; else RefusedError."""
    rows: int | None = None
    for name, tensor in tensors.items():
        width = tensor_widths(shape)[name]
        sizes = list(tensor.shape[:3])
        if len(tensor.shape) != 2 or sizes[1] != width or not 0 <= sizes[0] <= ROWS_MAX:
            raise invalid_argument(
                f"tensor {name!r} has {len(tensor.shape)} dimensions, the first of them {sizes}; "
                f"model {shape.model!r} takes [rows, {width}]"
            )
        if rows is not None and sizes[0] != rows:
            raise invalid_argument(f"tensor {name!r} has {sizes[0]} rows, the one before it {rows}")
        rows = sizes[0]
    assert rows is not None
    check_rows(rows, shape)
    return rows


def _raw_keys(blob: bytes, count: int) -> Sequence[bytes]:
    """Split raw BYTES contents into items: each has a little-endian uint32 length before it.

    Stops behind *count* + 1 items, so that a caller can tell that there are too many.
    """
    items: list[bytes] = []
    offset = 0
    while offset < len(blob) and len(items) <= count:
        if offset + 4 > len(blob):
            raise invalid_argument(
                f"tensor {KEYS!r} ends within a length, at byte {offset} of {len(blob)}"
            )
        (length,) = struct.unpack_from("<I", blob, offset)
        offset += 4
        if offset + length > len(blob):
            raise invalid_argument(
                f"tensor {KEYS!r} promises {length} bytes at byte {offset} of {len(blob)}"
            )
        items.append(blob[offset : offset + length])
        offset += length
    return items


def _raw_inputs(blob: bytes, count: int) -> Sequence[float]:
    if len(blob) != 4 * count:
        raise invalid_argument(
            f"tensor {INPUTS!r} has {len(blob)} raw bytes; its shape is {4 * count} of them"
        )
    values: list[float] = np.frombuffer(blob, dtype="<f4").tolist()
    return values


def _check_count(name: str, values: Sequence[V], count: int) -> Sequence[V]:
    if len(values) != count:
        sent = f"more than {count}" if len(values) > count else str(len(values))
        raise invalid_argument(f"tensor {name!r} holds {sent} elements; its shape is {count}")
    return values


def _ids(keys: Sequence[bytes], shape: ModelShape) -> list[bytes]:
    ids: list[bytes] = []
    for index, key in enumerate(keys):
        row = index // shape.entities
        try:
            ids.append(check_entity_id(key.decode()))
        except UnicodeDecodeError:
            raise invalid_argument(
                f"tensor {KEYS!r}, row {row}: an entity id is not UTF-8"
            ) from None
        except EntityIdError as error:
            raise invalid_argument(f"tensor {KEYS!r}, row {row}: {error}") from None
    return ids


def _check_outputs(request: ModelInferRequest) -> None:
    for index, output in enumerate(request.outputs):
        if output.name != SCORES:
            raise invalid_argument(
                f"output {quote_name(output.name)} is unknown; there is one, {SCORES!r}"
            )
        if index:
            raise invalid_argument(f"output {SCORES!r} is asked for {len(request.outputs)} times")
        if output.parameters:
            raise invalid_argument(
                f"output {SCORES!r} has {len(output.parameters)} parameters; none is known"
            )


def _parameters(request: ModelInferRequest) -> dict[str, str]:
    """Return the request's own parameters, all of which are text."""
    texts: dict[str, str] = {}
    for name, parameter in request.parameters.items():
        if name not in PARAMETERS:
            raise invalid_argument(
                f"parameter {quote_name(name)} is unknown; there are {list(PARAMETERS)}"
            )
        texts[name] = _string_parameter(name, parameter)
    return texts


def _string_parameter(name: str, parameter: InferParameter) -> str:
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise invalid_argument(f"parameter {name!r} is no string_param; send text")
    return parameter.string_param


def quote_name(name: str) -> str:
    """Return an unknown name so that a message may repeat it: ASCII, short and on one line."""
    return ascii(name if len(name) <= NAME_SHOWN_MAX else f"{name[:NAME_SHOWN_MAX]}...")
