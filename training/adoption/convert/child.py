"""What the sandboxed child of an adoption does: open, convert, score. `answer` is its entry.

Request: document `path`, `shown`; arrays: one for each column of the sample.
Answer: document `refused` with a sentence for the user, or what `training.adoption.open_foreign`
reads; file `onnx`; arrays `rows/INPUT`, `truth/OUTPUT` and `exact/OUTPUT`.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from host.sandbox.exchange import Message, pack_message, unpack_message
from training.adoption.convert.file_kinds import (
    FileKind,
    ModelFile,
    find_model,
    read_model_file,
)
from training.adoption.convert.opened import EXTRA, OpenedModel
from training.adoption.foreign import Feed, ForeignInput
from training.errors import AdoptionError

if TYPE_CHECKING:
    from training.adoption.inspect_graph import InspectedGraph

WEIGHTS_BYTES_MAX = 1024 * 1024 * 1024

Step = Callable[[str], None]


def answer(request: bytes, step: Step) -> bytes:
    """Return the answer to *request*."""
    # Libraries warn about their own code; what matters to the user is said in warnings.
    warnings.simplefilter("ignore")
    message = unpack_message(request)
    shown = message.document["shown"]
    try:
        file = find_model(Path(message.document["path"]), shown)
        step(f"opening {file.shown} ({file.kind.value})")
        opened = _open(
            file, [name for name, part in message.arrays.items() if part.dtype == object]
        )
        # From here on there is a graph, whoever made it.
        step(f"inspecting the graph of {file.shown}")
        from training.adoption.inspect_graph import inspect_graph

        graph = inspect_graph(opened.onnx, opened.weights)
        opened = _scored_output(graph, opened)
        graph = _named(graph, opened)
        step(f"scoring the sample by {opened.truth_by or 'the graph'}")
        rows, arrays = _scored(graph, opened, message.arrays)
    except AdoptionError as error:
        return pack_message(Message({"refused": str(error)}))
    except ModuleNotFoundError as error:
        text = f"{shown} needs the package {error.name}: {EXTRA}"
        return pack_message(Message({"refused": text}))
    document = {
        "origin": opened.origin
        if opened.truth_by
        else f"{graph.producer or 'ONNX'} graph, {shown}",
        "truth_by": opened.truth_by,
        "sample_rows": rows,
        "inputs": [
            [item.name, item.kind, list(item.columns), [list(known) for known in item.categories]]
            for item in graph.inputs
        ],
        "outputs": [
            [item.name, item.kind, item.width, list(item.classes)] for item in graph.outputs
        ],
        "warnings": [*opened.warnings, *graph.warnings],
    }
    return pack_message(Message(document, arrays, {"onnx": graph.onnx}))


def _open(file: ModelFile, texts: list[str]) -> OpenedModel:
    """Open and convert by the library that reads this kind. *texts* as in open_estimator."""
    if file.kind is FileKind.ONNX:
        total = sum(path.stat().st_size for path in file.siblings.values())
        if total > WEIGHTS_BYTES_MAX:
            raise AdoptionError(
                f"the files beside {file.shown} have {total} bytes; the most is {WEIGHTS_BYTES_MAX}"
            )
        weights = {name: path.read_bytes() for name, path in file.siblings.items()}
        content = read_model_file(file.path, file.shown)
        return OpenedModel(origin="", onnx=content, weights=weights)
    # The other libraries are imported only now, because each takes seconds.
    from training.adoption.convert import boosters, pickles

    if file.kind in (FileKind.PICKLE, FileKind.SKOPS):
        return pickles.open_pickle(file, texts)
    content = read_model_file(file.path, file.shown)
    if file.kind is FileKind.LIGHTGBM:
        return boosters.read_lightgbm(content, file.shown)
    if file.kind is FileKind.XGBOOST:
        return boosters.read_xgboost(content, file.shown)
    return boosters.read_catboost(file.path, file.shown)


def _named(graph: "InspectedGraph", opened: OpenedModel) -> "InspectedGraph":
    """Return *graph* with the names that the library has for columns and classes."""
    inputs = tuple(
        replace(item, columns=opened.columns[item.name])
        if len(opened.columns.get(item.name, ())) == len(item.columns)
        else item
        for item in graph.inputs
    )
    outputs = tuple(
        replace(item, classes=opened.classes)
        if item.name == opened.output and opened.classes and item.width in (0, len(opened.classes))
        else item
        for item in graph.outputs
    )
    return replace(graph, inputs=inputs, outputs=outputs)


def _scored_output(graph: "InspectedGraph", opened: OpenedModel) -> OpenedModel:
    """Return *opened* with the output that has its scores, if the converter named it otherwise."""
    names = [item.name for item in graph.outputs if item.kind != "label"]
    if opened.score is None or opened.output in names:
        return opened
    return replace(opened, output=names[0])


def _scored(
    graph: "InspectedGraph", opened: OpenedModel, sample: Mapping[str, NDArray[Any]]
) -> tuple[int, dict[str, NDArray[Any]]]:
    """Return the number of sample rows, and the arrays of the answer: none without a sample."""
    if opened.score is None or not sample:
        return 0, {}
    exact = _feed(graph.inputs, sample)
    rows = len(next(iter(exact.values())))
    given = {item.name: _as_served(item, exact[item.name]) for item in graph.inputs}
    truth, edges = _with_edges(graph, opened.score, given)
    arrays = {f"rows/{name}": part for name, part in edges.items()}
    arrays[f"truth/{opened.output}"] = truth
    # What float32 changes is only known where the sample is not float32 already.
    if any(
        not np.array_equal(given[name], part, equal_nan=part.dtype.kind == "f")
        for name, part in exact.items()
    ):
        arrays[f"exact/{opened.output}"] = _scores(opened.score, exact)
    return rows, arrays


def _with_edges(
    graph: "InspectedGraph", score: Callable[[Feed], NDArray[Any]], given: Feed
) -> tuple[NDArray[Any], Feed]:
    """Return the scores of the sample and of edge rows, and these rows."""
    from training.adoption.edge_feed import edge_feed

    try:
        scores = _scores(score, given)
    except Exception as error:
        raise AdoptionError(
            f"the model's own library cannot score the sample: {_first_line(error)}. The answers "
            "must give each column the values that the model was trained on"
        ) from error
    # Many libraries refuse NaN or unknown words; then such rows are no edge rows.
    for missing in (True, False):
        edges = edge_feed(graph.onnx, given, missing=missing)
        try:
            of_edges = _scores(score, edges) if len(next(iter(edges.values()))) else scores[:0]
        except Exception:
            if not missing:
                raise
            continue
        rows = {name: np.concatenate([part, edges[name]]) for name, part in given.items()}
        return np.concatenate([scores, of_edges]), rows
    raise AssertionError


def _scores(score: Callable[[Feed], NDArray[Any]], feed: Feed) -> NDArray[np.float64]:
    return np.asarray(score(feed), dtype=np.float64)


def _feed(inputs: tuple[ForeignInput, ...], sample: Mapping[str, NDArray[Any]]) -> Feed:
    """Return the columns of the sample as the graph takes them, floats in float64."""
    needed = [column for item in inputs for column in item.columns]
    absent = [column for column in needed if column not in sample]
    if absent:
        raise AdoptionError(
            f"the sample lacks {len(absent)} columns of the model: {', '.join(absent)[:300]}"
        )
    types: dict[str, Any] = {"text": object, "integer": np.int64, "boolean": np.bool_}
    feed = {}
    for item in inputs:
        kind = types.get(item.kind, np.float64)
        try:
            feed[item.name] = np.stack(
                [_column(sample[column], kind) for column in item.columns], axis=1
            )
        except ValueError as error:
            raise AdoptionError(
                f"the sample's columns for {item.name!r} are not {item.kind}s: {error}"
            ) from error
    return feed


def _column(values: NDArray[Any], kind: Any) -> NDArray[Any]:  # noqa: ANN401  a numpy type
    if kind is object:
        return np.array([str(value) for value in values.tolist()], dtype=object)
    return values.astype(kind)


def _as_served(item: ForeignInput, part: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers of *item* as a gateway has them, in the type that the graph takes."""
    if part.dtype.kind not in "fi":
        return part
    with np.errstate(over="ignore", invalid="ignore"):
        served = part.astype(np.float32)
        return served if item.kind == "float" else served.astype(part.dtype)


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:300]}".rstrip(". ")
