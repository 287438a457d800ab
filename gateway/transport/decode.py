"""Decodes a PredictRequest into flat values, and checks it against its model's shape. Pure.

The native server decodes in ingress/src/decode.rs. Both have the same error messages, to the byte.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from features.entity_ids import BYTES_MAX, check_entity_id, check_entity_ids
from features.errors import EntityIdError
from gateway.columns import ModelShape
from gateway.status import Code, Refusal, RefusedError
from gateway.transport.protobuf_scan import ProtobufScanError, longest_field
from protos.predict_pb2 import PredictRequest, Row

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

M = TypeVar("M", bound=Message)

PARSED_BYTES_MAX = 256 * 1024
"""A PredictRequest up to this size is parsed without a scan: it takes less than 10 ms."""
ROW_BYTES_MAX = 64 * 1024
"""Bytes of one row in a larger message: 16,000 inputs."""
FIELDS_MAX = 8_192
"""Top-level fields of a larger message, rows among them."""
ROWS_FIELD = PredictRequest.ROWS_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds on the texts of a request, in bytes, the same for every model."""

    name_bytes_max: int
    request_id_bytes_max: int


@dataclass(slots=True)
class DecodedCall:
    """One call that passed every check. Values are flat, row by row."""

    model: str
    rows: int
    sticky: bytes
    request_id: bytes
    pin: str
    criticality: int
    ids: list[bytes]
    """(rows x entities,) entity ids."""
    inputs: list[float]
    """(rows x request inputs,)."""
    nan_inputs: int
    """How many inputs are NaN or infinite."""
    any_version: bool = False
    """Whether the caller may pin every version of the model."""


def parse_predict(message: bytes) -> PredictRequest:
    """Parse bytes; RefusedError INVALID_ARGUMENT when they are no PredictRequest.

    A large message is scanned first, because protobuf took 2.4 s under the GIL to parse 4 MB with
    300,000 named inputs in one row. RESOURCE_EXHAUSTED for such a row, or for too many fields.
    """
    if len(message) > PARSED_BYTES_MAX:
        _check_size(message)
    try:
        return PredictRequest.FromString(message)
    except DecodeError:
        raise invalid_argument(
            f"{len(message)} bytes are not a turnout.v1.PredictRequest; names and ids are UTF-8"
        ) from None


def _check_size(message: bytes) -> None:
    try:
        row_bytes = longest_field(message, ROWS_FIELD, FIELDS_MAX)
    except ProtobufScanError as error:
        text = f"{len(message)} bytes that are no PredictRequest, or one of too many rows: {error}"
    else:
        if row_bytes <= ROW_BYTES_MAX:
            return
        text = f"a row of {row_bytes} bytes; at most {ROW_BYTES_MAX} are taken"
    raise RefusedError(Refusal(Code.RESOURCE_EXHAUSTED, text))


def parse_message(kind: type[M], message: bytes) -> M:
    """Parse bytes as a message of *kind*; RefusedError INVALID_ARGUMENT when they are not one."""
    try:
        return kind.FromString(message)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise invalid_argument(f"{len(message)} bytes are not a {name}") from None


def decode_predict(
    request: PredictRequest, shapes: Mapping[str, ModelShape], limits: DecodeLimits
) -> DecodedCall:
    """Check a call against its model's shape and return its values.

    Raises RefusedError for each kind of bad call, with the status that docs/calling.md lists. A
    message has the numbers that were sent and that are allowed, never long text of the caller.
    """
    shape = shape_of(request.model, shapes)
    # The model, the number of rows and the input contract come first.
    rows = request.rows
    check_rows(len(rows), shape)
    if request.contract not in (0, shape.guard):
        raise RefusedError(
            Refusal(
                Code.FAILED_PRECONDITION,
                f"the call was made for input contract {request.contract:#018x}; model "
                f"{shape.model!r} has {shape.guard:#018x}; ask DescribeModel and adapt",
            )
        )
    # One row without anything unusual goes the short way.
    plain = _decode_plain_row(rows[0], shape) if len(rows) == 1 else None
    inputs, nan_inputs = _inputs(rows, shape) if plain is None else (plain[1], 0)
    return DecodedCall(
        model=shape.model,
        rows=len(rows),
        sticky=check_text("sticky_key", request.sticky_key, limits.name_bytes_max),
        request_id=check_text("request_id", request.request_id, limits.request_id_bytes_max),
        pin=check_text("version", request.version, limits.name_bytes_max).decode(),
        criticality=request.criticality if 0 <= request.criticality <= 3 else 0,
        ids=_ids(rows, shape) if plain is None else plain[0],
        inputs=inputs,
        nan_inputs=nan_inputs,
    )


def shape_of(model: str, shapes: Mapping[str, ModelShape]) -> ModelShape:
    """Return the model's shape; RefusedError when the name is malformed or not served."""
    shape = shapes.get(model)
    if shape is not None:
        return shape
    if not MODEL_NAME.fullmatch(model):
        raise invalid_argument(
            f"the model's name is {len(model.encode())} bytes long or has odd characters; it is 1 "
            f"to 128 of letters, digits, '_', '-' and '.'"
        )
    raise RefusedError(Refusal(Code.NOT_FOUND, f"model {model!r} is not served here"))


def check_rows(rows: int, shape: ModelShape) -> None:
    """Raise RefusedError unless the model takes calls of this many rows."""
    if rows == 0:
        raise invalid_argument("the call has 0 rows; send at least one")
    if rows > shape.rows_max:
        raise RefusedError(
            Refusal(
                Code.RESOURCE_EXHAUSTED,
                f"the call has {rows} rows; model {shape.model!r} takes {shape.rows_max} a "
                "call; send it in parts",
            )
        )


def _decode_plain_row(row: Row, shape: ModelShape) -> tuple[list[bytes], list[float]] | None:
    """Return what `_ids` and `_inputs` make of one row, or None when the row needs their checks.

    Nearly every single call goes this way, at a third of the price; its caller waits for it.
    """
    keys, inputs, width = row.keys, row.inputs, len(shape.input_names)
    if len(keys) != shape.entities or len(inputs) != width or row.named or row.named_text:
        return None
    ids = []
    for key in keys:
        if not key.isprintable():
            return None
        encoded = key.encode()
        if not 0 < len(encoded) <= BYTES_MAX:
            return None
        ids.append(encoded)
    if not width:
        return ids, []
    values = inputs[:]
    return (ids, values) if math.isfinite(sum(values)) else None


def _ids(rows: Sequence[Row], shape: ModelShape) -> list[bytes]:
    keys = [row.keys[:] for row in rows]
    entities = shape.entities
    if set(map(len, keys)) <= {entities}:
        ids = check_entity_ids([key for row_keys in keys for key in row_keys])
        if ids is not None:
            return ids
    raise invalid_argument(_id_error(keys, shape))


def _id_error(keys: Sequence[Sequence[str]], shape: ModelShape) -> str:
    """Return the error of the first row whose keys are not valid."""
    for index, row_keys in enumerate(keys):
        if len(row_keys) != shape.entities:
            return (
                f"row {index} has {len(row_keys)} keys; model {shape.model!r} takes "
                f"{shape.entities}, in the order DescribeModel gives"
            )
        try:
            for key in row_keys:
                check_entity_id(key)
        except EntityIdError as error:
            return f"row {index}: {error}"
    raise AssertionError("every row's keys are valid")


def _inputs(rows: Sequence[Row], shape: ModelShape) -> tuple[list[float], int]:
    width = len(shape.input_names)
    # A slice copies a row's values at once, at half the price of one by one.
    sent = [row.inputs[:] for row in rows]
    named = [bool(row.named) or bool(row.named_text) for row in rows]
    # The usual batch has positional inputs of the right width only.
    if not any(named) and set(map(len, sent)) <= {width}:
        values = list(chain.from_iterable(sent))
        return values, check_finite(values, shape)
    # Otherwise each row is checked and converted by itself.
    values = []
    for index, (row, inputs) in enumerate(zip(rows, sent, strict=True)):
        if not named[index] and len(inputs) == width:
            values += inputs
            continue
        if not named[index]:
            raise invalid_argument(
                f"row {index} has {len(inputs)} inputs; model {shape.model!r} takes {width}"
            )
        if inputs:
            raise invalid_argument(f"row {index} has both inputs and named ones; send one kind")
        values += _named_inputs(index, row, shape)
    return values, check_finite(values, shape)


def check_finite(values: Sequence[float], shape: ModelShape) -> int:
    """Return how many values are NaN or infinite; RefusedError where the model refuses those."""
    # A sum is finite only if every value is; it costs a fifth of a test of each value.
    if math.isfinite(sum(values)):
        return 0
    unusable = sum(1 for value in values if not math.isfinite(value))
    if unusable and shape.nan_inputs_refused:
        raise invalid_argument(
            f"{unusable} inputs are NaN or infinite, and model {shape.model!r} does not take them"
        )
    return unusable


def _named_inputs(index: int, row: Row, shape: ModelShape) -> list[float]:
    """Return one row's inputs, sent by name; an input that is not sent has its default."""
    positions = {name: position for position, name in enumerate(shape.input_names)}
    values = list(shape.input_defaults)
    unknown_names = [name for name in (*row.named, *row.named_text) if name not in positions]
    if unknown_names:
        raise invalid_argument(
            f"row {index} names {len(unknown_names)} inputs that model {shape.model!r} does not "
            f"have, the first {len(unknown_names[0].encode())} bytes long; it has "
            f"{list(shape.input_names)}"
        )
    for name, value in row.named.items():
        values[positions[name]] = value
    for name, text in row.named_text.items():
        dictionary = shape.dictionaries[positions[name]]
        if not dictionary or name in row.named:
            raise invalid_argument(
                f"row {index}: input {name!r} is sent as text, and is "
                f"{'sent as a number too' if dictionary else 'no category'}"
            )
        known = text in dictionary
        values[positions[name]] = dictionary.index(text) if known else len(dictionary)
    return values


def check_text(field: str, text: str, bytes_max: int) -> bytes:
    """Return *text* as UTF-8; RefusedError when it is too long or has a control character."""
    if not text:
        return b""
    encoded = text.encode()
    if len(encoded) > bytes_max:
        raise invalid_argument(
            f"{field} is {len(encoded)} bytes long; it must be at most {bytes_max}"
        )
    if CONTROL.search(text):
        raise invalid_argument(f"{field} holds a control character; remove it")
    return encoded


def invalid_argument(message: str) -> RefusedError:
    """Return the error to raise for a malformed call."""
    return RefusedError(Refusal(Code.INVALID_ARGUMENT, message))
