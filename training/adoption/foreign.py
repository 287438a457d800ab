"""A model of another tool as adoption sees it, and how its graph is to be adapted.

A foreign model is an ONNX graph with any inputs and outputs. Its rows are held as the graph takes
them: for each input of the graph one array, (N, C), with one column for each of its C columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

InputKind = Literal["float", "double", "integer", "boolean", "text"]
OutputKind = Literal["probabilities", "label", "values"]
Transform = Literal["none", "sigmoid", "softmax"]

Feed = Mapping[str, NDArray[Any]]
"""Graph input -> (N, C): float32, float64, int64, bool, or str objects."""


@dataclass(frozen=True, slots=True)
class ForeignInput:
    """One input of a foreign graph.

    name        the graph's input.
    columns     names of its columns where the file has them; else `{name}_{i}`, or the name itself
                for a width of 1.
    categories  for text: the words of each column that the graph knows, in order; an empty tuple
                for a column whose words the graph does not say. Empty for all other kinds.
    """

    name: str
    kind: InputKind
    columns: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignOutput:
    """One output of a foreign graph.

    kind     "label" cannot be served. A list of dictionaries (ZipMap) is "probabilities" in the
             order of *classes*.
    width    number of its columns; 0 if the graph does not say.
    classes  names of the classes, where the file has them.
    """

    name: str
    kind: OutputKind
    width: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class ForeignModel:
    """A foreign model as one ONNX file, and what its own library says of some rows.

    origin       for example "sklearn 1.9.1 Pipeline in churn.pkl".
    onnx         one file; its weights are inside.
    rows         the N rows that the library scored: the sample, then edge rows (`edge_feed`). All
                 numbers are rounded to float32 first, as a gateway has them. Empty for ONNX files,
                 whose graph is its own truth.
    sample_rows  number of sample rows, which come first in *rows*.
    truth        output -> (N, width) scores of *rows* by the library. Empty for ONNX files.
    truth_exact  output -> (sample_rows, width) scores by the library of the sample as it was given,
                 without rounding to float32. Empty if no number was rounded.
    truth_by     for example "lightgbm 4.6.0"; "" for ONNX files.
    """

    origin: str
    onnx: bytes
    inputs: tuple[ForeignInput, ...]
    outputs: tuple[ForeignOutput, ...]
    rows: Feed = field(default_factory=dict)
    sample_rows: int = 0
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    truth_exact: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    truth_by: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """Where one column of a foreign input comes from.

    foreign_input, column  the column to be filled.
    model_input            name in `ModelContract.names`; "" for a constant.
    constant               the value of a constant: a number, or a word for a text input.
    dictionary             for a category of the contract: position -> word that the graph is given.
                           For an input of numbers the words must be numbers.
    unknown                the word for every other position, where there is a dictionary.
    missing                the word for NaN. Where there is no dictionary it is a number; "" then
                           leaves NaN to the graph, and is 0 for integers and booleans, which have
                           no NaN.
    """

    foreign_input: str
    column: int
    model_input: str
    constant: float | str | None = None
    dictionary: tuple[str, ...] = ()
    unknown: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """How a foreign graph is brought to `inputs` (B, F) -> `scores` (B, K).

    columns    a source for every column of every input of the foreign graph, in any order.
    output     the foreign output that is served.
    selected   its columns, in the order of the contract's outputs.
    transform  applied to all columns of the output before the selected ones are taken: "sigmoid" or
               "softmax" (over a row) turn logits to probabilities.
    """

    columns: tuple[ColumnSource, ...]
    output: str
    selected: tuple[int, ...]
    transform: Transform = "none"
