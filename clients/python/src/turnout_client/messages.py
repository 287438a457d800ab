"""Conversions between plain Python values and the messages of a call.

numpy is optional. With numpy, scores and row flags are arrays. Without numpy, scores are a list of
lists and row flags are a list. `scores[row][output]` and `row_flags[row]` read both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import TYPE_CHECKING, Any, Union

from turnout_client._protos.predict_pb2 import OutcomeRequest, PredictReply, Role, Row

try:
    import numpy as np
except ImportError:  # numpy is not a dependency of this package
    np = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Keys = Union[str, Sequence[str], Sequence[Sequence[str]]]
"""Entity ids: one id, or R ids, or R lists of ids in the order of the model's entities."""

NamedInputs = Mapping[str, Union[float, str]]
"""Request inputs of one row by name: a number, or a string for a category."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer to one call of R rows, from a model with K outputs.

    Type checkers see arrays. Where numpy is not installed, they see Any.
    """

    model: str
    version: str
    """The label of the version that scored the rows, for example "7"."""
    role: str
    """production, canary, pinned, or fallback (the canary failed and production answered)."""
    holdout: bool
    """True if the customer is in the control group. Then do not act on the scores."""
    scores: NDArray[np.float32]
    """(R, K) float32. A binary model has K = 1, the probability of the positive class.

    Without numpy: a list of R lists of K floats.
    """
    row_flags: NDArray[np.uint32]
    """(R,) uint32, bits of RowFlag; 0 if all features of the row were fresh.

    Without numpy: a list of R ints.
    """
    prediction_id: bytes
    """64 bytes that name this prediction when its outcome is reported."""
    request_id: str
    """The request_id of the call."""


def build_rows(
    keys: Keys | None, inputs: ArrayLike | None, named: NamedInputs | Sequence[NamedInputs] | None
) -> Iterator[Row]:
    """Yield the R rows of one call.

    keys    entity ids of R rows, see Keys. None: the model has no entities.
    inputs  (I,) numbers for one row, or (R, I): request inputs in the order of DescribeModel.
    named   one mapping for one row, or R mappings: request inputs by name.

    R is the common length of the arguments that are given. Raises ValueError if these lengths
    differ, or if inputs and named are both given.
    """
    # Bring each argument into one list of R entries.
    if inputs is not None and named is not None:
        raise ValueError("inputs are given by position or by name (named=), not both")
    columns: dict[str, Sequence[Any]] = {}
    if keys is not None:
        columns["keys"] = [
            [key] if isinstance(key, str) else key
            for key in ([keys] if isinstance(keys, str) else keys)
        ]
    if inputs is not None:
        columns["inputs"] = _input_rows(inputs)
    if named is not None:
        columns["named"] = [named] if isinstance(named, Mapping) else named
    # Check that all lists have the same length.
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"one call has one number of rows, not {lengths}")
    # Build one Row of each position. Named inputs are split into numbers and texts.
    for cells in zip(*columns.values()):
        row = dict(zip(columns, cells))
        values = row.pop("named", {})
        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        numbers = {name: value for name, value in values.items() if name not in texts}
        yield Row(**row, named=numbers, named_text=texts)


def _input_rows(inputs: Any) -> list[list[float]]:  # noqa: ANN401  any array of numbers
    """Return *inputs* as R lists of I numbers; one vector becomes one row."""
    if np is not None:
        matrix: list[list[float]] = np.atleast_2d(np.asarray(inputs, dtype=np.float32)).tolist()
        return matrix
    rows = list(inputs)
    return [list(row) for row in rows] if rows and hasattr(rows[0], "__len__") else [rows]


def read_prediction(reply: PredictReply) -> Prediction:
    """Return *reply* as a Prediction, with arrays if numpy is installed."""
    outputs = max(reply.outputs, 1)
    scores: Any
    flags: Any
    if np is not None:
        scores = np.array(reply.scores, dtype=np.float32).reshape(-1, outputs)
        flags = np.array(reply.row_flags, dtype=np.uint32)
    else:
        flat = list(reply.scores)
        scores = [flat[start : start + outputs] for start in range(0, len(flat), outputs)]
        flags = list(reply.row_flags)
    # The gateway leaves the flags out when all of them are 0.
    if not len(flags):
        flags = [0] * len(scores) if np is None else np.zeros(len(scores), dtype=np.uint32)
    return Prediction(
        model=reply.model,
        version=reply.version,
        role=Role.Name(reply.role).lower(),
        holdout=reply.holdout,
        scores=scores,
        row_flags=flags,
        prediction_id=reply.prediction_id,
        request_id=reply.request_id,
    )


def build_outcome(
    prediction: Prediction | bytes,
    name: str,
    value: float,
    row: int,
    event_time_ms: int,
    idempotency_key: str,
) -> OutcomeRequest:
    """Return the report of an outcome.

    An empty idempotency_key becomes a hash of prediction, row and name, so that a report that is
    sent twice counts once.
    """
    prediction_id = prediction.prediction_id if isinstance(prediction, Prediction) else prediction
    default_key = blake2s(f"{prediction_id.hex()}/{row}/{name}".encode(), digest_size=16)
    return OutcomeRequest(
        prediction_id=prediction_id,
        row=row,
        name=name,
        value=value,
        event_time_ms=event_time_ms,
        idempotency_key=idempotency_key or default_key.hexdigest(),
    )


def build_entity_outcome(
    model: str,
    keys: str | Sequence[str],
    name: str,
    value: float,
    event_time_ms: int,
    idempotency_key: str,
) -> OutcomeRequest:
    """Return the report of an outcome whose prediction is not known.

    An empty idempotency_key becomes a hash of model, keys, name and time, so that a report that is
    sent twice counts once.
    """
    ids = [keys] if isinstance(keys, str) else list(keys)
    # No id contains the separator.
    event = "\x1f".join([model, name, str(event_time_ms), *ids])
    return OutcomeRequest(
        model=model,
        keys=ids,
        name=name,
        value=value,
        event_time_ms=event_time_ms,
        idempotency_key=idempotency_key or blake2s(event.encode(), digest_size=16).hexdigest(),
    )
