"""Calls the author's own function, which fits a model and gives its ONNX graph."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training.adoption.foreign import ForeignOutput
from training.adoption.inspect_graph import inspect_graph
from training.errors import AdoptionError, ConversionError, RecipeError
from training.export.onnx_model import OnnxModel
from training.learner import Learner
from training.learners.fitted import Targets
from training.learners.served_graph import served_graph

Scores = Callable[[NDArray[np.float32]], Any]


@dataclass(frozen=True, eq=False, slots=True)
class FunctionLearner:
    """What an author's function has fitted (FittedLearner).

    onnx             from one input (B, F) to *output*.
    output           the output that is served.
    columns          its columns, K of them.
    score            the author's own scores of (N, F) rows; None: the graph is its own truth.
    function         name of the function.
    negatives_share  share of the negative rows that it was given.
    """

    onnx: bytes
    output: str
    columns: tuple[int, ...]
    score: Scores | None
    function: str
    negatives_share: float = 1.0

    @property
    def truth_by(self) -> str:
        """The function; "" if it gave no scores of its own."""
        return "" if self.score is None else self.function

    def outputs(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the author's scores of *rows*, (N, F), or the graph's, as (N, K).

        Raises RecipeError for scores of another shape.
        """
        if self.score is None:
            graph = self.to_onnx(name="truth", width=rows.shape[1], model_contract="")
            return OnnxModel(graph).scores(rows).astype(np.float64)
        with threadpool_limits(limits=1):
            given = np.asarray(_called(self.score, f"the scores of {self.function}", rows))
            given = given.astype(np.float64)
        scores = given[:, np.newaxis] if given.ndim == 1 else given
        # As many columns as the graph has, or those that are served.
        if scores.ndim == 2 and scores.shape[1] > len(self.columns):
            scores = scores[:, list(self.columns)]
        if scores.shape != (len(rows), len(self.columns)):
            raise RecipeError(
                f"the scores of {self.function} have the shape {given.shape} for {len(rows)} rows; "
                f"({len(rows)}, {len(self.columns)}) is needed"
            )
        if self.negatives_share == 1.0:
            return scores
        return scores / (scores + (1.0 - scores) / self.negatives_share)

    def to_onnx(self, *, name: str, width: int, model_contract: str) -> bytes:  # noqa: ARG002  the graph has it
        """Return the graph, as FittedLearner says."""
        return served_graph(
            self.onnx,
            self.output,
            self.columns,
            name=name,
            model_contract=model_contract,
            negatives_share=self.negatives_share,
        )


def fit_function(
    learner: Learner,
    seed: int,
    rows: NDArray[np.float32],
    targets: Targets,
    negatives_share: float,
) -> FunctionLearner:
    """Return what the function of *learner* has fitted.

    The function runs in this process, with the rights of whoever trains. Raises RecipeError for a
    function that is not at hand or gives something else than a graph, and ConversionError for a
    graph that cannot be served.
    """
    # A recipe that was rebuilt from its definition lacks the function.
    name = str(learner.parameters["function"])
    if learner.fit is None:
        raise RecipeError(
            f"the function {name} is not at hand; train by `turnout train`, or with the recipe as "
            "its file declares it"
        )
    # The author's function fits, and gives a graph with or without scores of its own.
    arguments = learner.parameters.get("arguments", {})
    given = _called(learner.fit, name, rows, targets.values, seed, **arguments)
    onnx, score = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if hasattr(onnx, "SerializeToString"):
        onnx = onnx.SerializeToString(deterministic=True)
    if not isinstance(onnx, bytes) or not (score is None or callable(score)):
        raise RecipeError(
            f"{name} returned {type(given).__name__}; it must return the bytes of an ONNX graph, "
            "or a pair of these and a function that scores rows"
        )
    # The graph says which of its outputs is served.
    try:
        graph = inspect_graph(onnx)
    except AdoptionError as error:
        raise ConversionError(f"the graph of {name} cannot be served: {error}") from error
    width = sum(len(item.columns) for item in graph.inputs)
    if width != rows.shape[1]:
        raise ConversionError(
            f"the graph of {name} takes {width} columns, and its function was given "
            f"{rows.shape[1]}; give it one input with all columns of the rows"
        )
    output, columns = _served(graph.outputs, targets, name)
    return FunctionLearner(onnx, output, columns, score, name, negatives_share)


def _called(function: Callable[..., Any], shown: str, *given: Any, **arguments: Any) -> Any:  # noqa: ANN401  JSON values and arrays
    """Return what an author's function returns; RecipeError with its line for what it raises."""
    try:
        return function(*given, **arguments)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        # The way into a library says little; the author's own last line does.
        file = getattr(getattr(function, "__code__", None), "co_filename", None)
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        place = f" at line {lines[-1]}" if lines else ""
        raise RecipeError(f"{shown}: {type(error).__name__}{place}: {error}") from error


def _served(
    outputs: tuple[ForeignOutput, ...], targets: Targets, name: str
) -> tuple[str, tuple[int, ...]]:
    """Return the output of the scores and its columns."""
    scores = [item for item in outputs if item.kind != "label"]
    count = targets.outputs
    fitting = [item for item in scores if item.width == count]
    # Two probabilities are those of the negative and the positive class.
    if not fitting and targets.task == "binary":
        pairs = [item for item in scores if item.width == 2]
        if len(pairs) == 1:
            return pairs[0].name, (1,)
    if len(fitting) != 1:
        raise ConversionError(
            f"the graph of {name} has the outputs "
            f"{ {item.name: item.width for item in scores} } with so many columns; one output of "
            f"{count} is needed for the task {targets.task!r}"
        )
    return fitting[0].name, tuple(range(count))
