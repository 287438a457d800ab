"""Encodes the request inputs of labelled rows, as a gateway encodes those of a call."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import RequestInput
from training.errors import LabelsError


def encode_inputs(
    inputs: Sequence[RequestInput], columns: Mapping[str, NDArray[Any]]
) -> NDArray[np.float32]:
    """Return (N, I) float32, a column for each of *inputs*, of which there is at least one.

    columns  LabelledRows.inputs: input -> its N values.

    A text becomes its position in the dictionary, or K; a number is rounded to float32. A missing
    value becomes the default. Raises LabelsError for an absent column, an infinite number, or a
    value that is not of the input's kind.
    """
    absent = [item.name for item in inputs if item.name not in columns]
    if absent:
        raise LabelsError(
            f"the labels have no values of the request inputs {absent}; they have "
            f"{sorted(columns)}: name these columns in Labels.inputs"
        )
    encoded = [_encode(item, columns[item.name]) for item in inputs]
    return np.stack(encoded, axis=1)


def _encode(item: RequestInput, column: NDArray[Any]) -> NDArray[np.float32]:
    masked = np.ma.getmaskarray(column).tolist()
    values = [
        None if hidden else value
        for value, hidden in zip(np.ma.getdata(column).tolist(), masked, strict=True)
    ]
    # A text of a category becomes its position, as in gateway.transport.decode.
    kind = str if item.dictionary else (bool, int, float)
    wrong = next((v for v in values if v is not None and not isinstance(v, kind)), None)
    if wrong is not None:
        raise LabelsError(
            f"request input {item.name!r} is a {'category' if item.dictionary else 'number'}, and "
            f"a label has {wrong!r}; cast the column in the transform of the labels"
        )
    if item.dictionary:
        codes = {text: float(code) for code, text in enumerate(item.dictionary)}
        unknown = float(len(codes))
        numbers = [None if v is None else codes.get(v, unknown) for v in values]
    else:
        numbers = [None if v is None or v != v else float(v) for v in values]
    default = item.default_value
    with np.errstate(over="ignore"):
        encoded = np.array([default if v is None else v for v in numbers]).astype(np.float32)
    if np.isinf(encoded).any():
        raise LabelsError(
            f"request input {item.name!r} is infinite in {int(np.isinf(encoded).sum())} labels; "
            "make it NULL in the transform of the labels, or leave these rows out"
        )
    return encoded
