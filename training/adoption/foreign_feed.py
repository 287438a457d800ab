"""Makes the rows of a foreign graph from rows of the contract, as the adapted graph does.

This is a second implementation, in numpy, of the nodes that adapt_graph adds; the certificate
compares the two.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from features.contract import ModelContract
from training.adoption.foreign import Adaptation, ColumnSource, Feed, ForeignModel
from training.adoption.inspect_graph import input_types
from training.errors import AdoptionError

TRUTH_TEXTS = {"true": 1.0, "false": 0.0}


class FeedMaker:
    """Makes the inputs of one foreign graph from rows of the contract."""

    def __init__(
        self, model: ForeignModel, adaptation: Adaptation, contract: ModelContract
    ) -> None:
        """Take an adaptation that fits the graph and the contract (`check_adaptation`)."""
        self._model = model
        self._types = input_types(onnx.load_model_from_string(model.onnx))
        self._sources = adaptation.columns
        self._positions = {name: index for index, name in enumerate(contract.names)}

    def feed(self, rows: NDArray[np.float32]) -> Feed:
        """Return the graph's inputs for *rows*, (N, F) float32 in the contract's order."""
        feed: dict[str, NDArray[Any]] = {
            item.name: np.empty((len(rows), len(item.columns)), dtype=self._types[item.name])
            for item in self._model.inputs
        }
        for source in self._sources:
            column = feed[source.foreign_input][:, source.column]
            text = column.dtype.kind == "O"
            if source.constant is not None:
                column[:] = str(source.constant) if text else source.constant
                continue
            values = rows[:, self._positions[source.model_input]]
            make = _coded if source.dictionary else _picked
            column[:] = make(source, values, column.dtype)
        return feed


def check_adaptation(model: ForeignModel, adaptation: Adaptation, contract: ModelContract) -> None:
    """Raise AdoptionError unless every column has a source, and the outputs fit the contract."""
    _check_columns(model, adaptation, contract)
    _check_output(model, adaptation, contract)


def texts_of(source: ColumnSource) -> list[str]:
    """Return the words of the positions 0, 1, ..., then of NaN, then of any other value."""
    return [*source.dictionary, source.missing, source.unknown]


def number_of(word: str, if_empty: float) -> float:
    """Return the number that a word stands for. ValueError if it stands for none."""
    if word == "":
        return if_empty
    return TRUTH_TEXTS[word.lower()] if word.lower() in TRUTH_TEXTS else float(word)


def integer_bounds(kind: int) -> tuple[np.float32, np.float32] | None:
    """Return the least and greatest float32 within an integer type of ONNX; None for others.

    Numbers beyond are brought to the bound, because a cast of them is undefined.
    """
    if kind in (TensorProto.STRING, TensorProto.BOOL):
        return None
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if dtype.kind not in "iu":
        return None
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    top = np.float32(high)
    # The nearest float32 may be just above the type's greatest number.
    return np.float32(low), top if int(top) <= high else np.nextafter(top, np.float32(0))


def _picked(
    source: ColumnSource, values: NDArray[np.float32], dtype: np.dtype[Any]
) -> NDArray[Any]:
    if dtype.kind == "f":
        missing = number_of(source.missing, float("nan"))
        return np.where(np.isnan(values), np.float32(missing), values).astype(dtype)
    missing = number_of(source.missing, 0.0)
    numbers = np.where(np.isnan(values), np.float32(missing), values)
    bounds = integer_bounds(helper.np_dtype_to_tensor_dtype(dtype))
    return (numbers if bounds is None else np.clip(numbers, *bounds)).astype(dtype)


def _coded(source: ColumnSource, values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    count = len(source.dictionary)
    # The index of each value's word: positions, then NaN, then any other value.
    known = (values >= 0) & (values < count) & (values == np.floor(values))
    indexes = np.full(len(values), count + 1)
    indexes[known] = values[known].astype(np.int64)
    indexes[np.isnan(values)] = count
    words = texts_of(source)
    if dtype.kind == "O":
        texts: NDArray[Any] = np.array(words, dtype=object)[indexes]
        return texts
    numbers = [number_of(word, float("nan") if dtype.kind == "f" else 0.0) for word in words]
    # Numbers of a graph's dictionary are float32, or int64.
    exact: Any = np.int64 if dtype.kind in "iu" else np.float32
    coded: NDArray[Any] = np.array(numbers).astype(exact).astype(dtype)[indexes]
    return coded


def _check_columns(model: ForeignModel, adaptation: Adaptation, contract: ModelContract) -> None:
    wanted = [(item.name, column) for item in model.inputs for column in range(len(item.columns))]
    given = Counter((item.foreign_input, item.column) for item in adaptation.columns)
    absent = [key for key in wanted if key not in given]
    twice = [key for key, count in given.items() if count > 1]
    extra = sorted(given.keys() - set(wanted))
    if absent or twice or extra:
        raise AdoptionError(
            f"columns of the graph without a source: {absent[:3]}; with two: {twice[:3]}; sources "
            f"of columns that it does not have: {extra[:3]}. Give each column one source"
        )
    kinds = {item.name: item.kind for item in model.inputs}
    for source in adaptation.columns:
        problem = _problem_of(source, kinds[source.foreign_input], contract.names)
        if problem:
            raise AdoptionError(
                f"column {source.column} of the graph's input {source.foreign_input!r} {problem}"
            )


def _problem_of(source: ColumnSource, kind: str, names: Sequence[str]) -> str:
    """Return why a source cannot fill its column; "" if it can."""
    if source.constant is not None:
        number = isinstance(source.constant, int | float)
        if number == (kind == "text"):
            return f"takes {kind}, and its constant is {source.constant!r}; give the same type"
        return ""
    if source.model_input not in names:
        return f"has the source {source.model_input!r}; the contract's inputs are {list(names)}"
    if kind == "text":
        if not source.dictionary:
            return (
                f"takes texts, and {source.model_input!r} has no dictionary; give the words of its "
                "positions"
            )
        return ""
    try:
        numbers = [number_of(word, 0.0) for word in texts_of(source)]
    except ValueError as error:
        return f"takes numbers; {error}. Give numbers as words"
    if kind == "integer" and any(not number.is_integer() for number in numbers):
        return f"takes whole numbers, and its words are {texts_of(source)[:5]}"
    return ""


def _check_output(model: ForeignModel, adaptation: Adaptation, contract: ModelContract) -> None:
    served = {item.name: item for item in model.outputs}.get(adaptation.output)
    if served is None or served.kind == "label":
        usable = [item.name for item in model.outputs if item.kind != "label"]
        raise AdoptionError(
            f"the output {adaptation.output!r} gives no scores; serve one of {usable}"
        )
    selected = adaptation.selected
    if len(selected) != len(contract.outputs) or len(set(selected)) != len(selected):
        raise AdoptionError(
            f"the columns {list(selected)} of {served.name!r} are to be served, and the contract "
            f"has the outputs {list(contract.outputs)}; name one column for each output"
        )
    outside = [column for column in selected if not 0 <= column < served.width]
    if outside:
        raise AdoptionError(
            f"the output {served.name!r} has {served.width} column(s), and column {outside[0]} is "
            "to be served; the first is 0"
        )
