"""Scores two versions side by side, and compares their graphs, in a sandboxed child.

The files of a version are what their author wrote, so no process of an operator opens them. The
child's answer is read as hostile, because a graph may write it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.sandbox.exchange import MalformedMessageError, Message, pack_message, unpack_message
from host.sandbox.run import (
    Isolation,
    NoSandboxError,
    SandboxError,
    SandboxLimits,
    SandboxTask,
    choose_isolation,
    run_in_sandbox,
)
from host.text import escape_controls
from registry.types import ScoringError, VersionRefusedError
from training.errors import CertifyError

MODULE = "training.retrain.sandboxed_scores"
ROOMS = ("access", "features", "host", "journal", "protos", "registry", "stats", "training")
"""Rooms that the child imports."""
LIMITS = SandboxLimits()
SENTENCE_MAX = 2_000
DIFFERENCES_MAX = 20
"""Differences of two graphs that are named."""


@dataclass(frozen=True, slots=True)
class GraphDifference:
    """One part in which two graphs differ.

    kind  "node", "initializer", "metadata", "input", "output" or "opset".
    """

    kind: str
    name: str
    difference: str


@dataclass(frozen=True, slots=True)
class SideBySide:
    """What two versions make of the same rows.

    first, second  (N, K) float32 scores.
    graph          the parts in which their graphs differ; empty unless that was asked for.
    """

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    graph: tuple[GraphDifference, ...]


def score_side_by_side(
    first: bytes,
    second: bytes,
    rows: NDArray[np.float32],
    outputs: int,
    *,
    graphs: bool = False,
    isolation: Isolation | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> SideBySide:
    """Score (N, F) *rows* with two ONNX files of versions that have as many *outputs*.

    graphs     also compare the graphs.
    isolation  None chooses one.

    Raises CertifyError when a file is refused, or the child gives no answer.
    """
    # The child has no files: all it needs is in the request.
    message = Message(
        {"outputs": outputs, "graphs": graphs}, {"rows": rows}, {"first": first, "second": second}
    )
    task = SandboxTask(module=MODULE, packages=ROOMS, request=pack_message(message))
    try:
        answered = run_in_sandbox(task, LIMITS, isolation or choose_isolation(), progress)
        answer = unpack_message(answered)
        # A refusal is a sentence for the user; it is raised below.
        if "refused" not in answer.document:
            return _side_by_side(answer, (len(rows), outputs))
    except (SandboxError, NoSandboxError) as error:
        raise CertifyError(f"the versions were not scored: {error}") from error
    except (MalformedMessageError, KeyError, TypeError, ValueError) as error:
        raise CertifyError(
            "the versions were not scored: the report of their child is not one that Turnout's "
            f"code writes ({type(error).__name__}), so a graph may have written it"
        ) from error
    raise CertifyError(escape_controls(str(answer.document["refused"])[:SENTENCE_MAX]))


def _side_by_side(answer: Message, shape: tuple[int, int]) -> SideBySide:
    first, second = answer.arrays["first"], answer.arrays["second"]
    if any(scores.dtype != np.float32 or scores.shape != shape for scores in (first, second)):
        raise MalformedMessageError("its scores do not fit the rows")
    found = [
        GraphDifference(
            **{name: escape_controls(str(text)[:SENTENCE_MAX]) for name, text in item.items()}
        )
        for item in answer.document["graph"][:DIFFERENCES_MAX]
    ]
    return SideBySide(first, second, tuple(found))


def answer(request: bytes, step: Callable[[str], None]) -> bytes:
    """Return the answer to *request*. The child calls it."""
    from registry import scoring  # ONNX Runtime: for the child alone

    message = unpack_message(request)
    rows, outputs = message.arrays["rows"], message.document["outputs"]
    # Open each file, and score the rows.
    scores = {}
    try:
        for name in ("first", "second"):
            step(f"scoring with the {name} version")
            opened = scoring.open_onnx(message.files[name])
            scores[name] = scoring.Session(opened, rows.shape[1], outputs).run(rows)
    except (VersionRefusedError, ScoringError) as error:
        return pack_message(Message({"refused": str(error)}))
    # Compare the graphs, if their difference is asked for.
    graph = []
    if message.document["graphs"]:
        step("comparing the graphs")
        found = graph_differences(message.files["first"], message.files["second"])
        graph = [asdict(item) for item in found[:DIFFERENCES_MAX]]
    return pack_message(Message({"graph": graph}, scores))


def graph_differences(first: bytes, second: bytes) -> list[GraphDifference]:
    """Return the parts in which two ONNX files differ, in the order of the first graph.

    Nodes and initializers are compared by name, and nodes without a name by their place.
    """
    import onnx  # for the child alone

    models = [onnx.ModelProto.FromString(content) for content in (first, second)]
    parts = [_parts(model) for model in models]
    found = []
    for key in dict.fromkeys([*parts[0], *parts[1]]):
        left, right = parts[0].get(key), parts[1].get(key)
        if left is None or right is None:
            where = "recorded" if right is None else "rebuilt"
            found.append(GraphDifference(*key, f"only in the {where} graph"))
        elif left.SerializeToString(deterministic=True) != right.SerializeToString(
            deterministic=True
        ):
            found.append(GraphDifference(*key, _how(left, right)))
    return found


def _parts(model: Any) -> dict[tuple[str, str], Any]:  # noqa: ANN401  protobuf messages
    """Return (kind, name) -> message of each part of a model."""
    graph = model.graph
    nodes = {
        ("node", f"{node.op_type} {node.name or f'number {place}'}"): node
        for place, node in enumerate(graph.node)
    }
    return {
        **nodes,
        **{("initializer", item.name): item for item in graph.initializer},
        **{("input", item.name): item for item in graph.input},
        **{("output", item.name): item for item in graph.output},
        **{("metadata", item.key): item for item in model.metadata_props},
        **{("opset", item.domain or "ai.onnx"): item for item in model.opset_import},
    }


def _how(left: Any, right: Any) -> str:  # noqa: ANN401  protobuf messages
    """Return how two parts of one kind differ: of each attribute the first value that does."""
    import onnx

    if isinstance(left, onnx.TensorProto):
        return _first_difference(left.name, _flat(left), _flat(right))
    if not isinstance(left, onnx.NodeProto):
        return " ".join(f"{left} -> {right}".split())
    if (left.input, left.output) != (right.input, right.output):
        return f"{[*left.input, *left.output]} -> {[*right.input, *right.output]}"
    sides = [{item.name: item for item in node.attribute} for node in (left, right)]
    found = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = (side.get(name) for side in sides)
        if one is None or other is None:
            found.append(f"only one of both has {name}")
        elif one != other:
            values = [_flat(onnx.helper.get_attribute_value(item)) for item in (one, other)]
            found.append(_first_difference(name, *values))
    return "; ".join(found) or "another order of attributes"


def _flat(value: Any) -> Sequence[Any]:  # noqa: ANN401  the value of an attribute, or a tensor
    import onnx
    from onnx import numpy_helper

    if isinstance(value, onnx.TensorProto):
        flat: Sequence[Any] = numpy_helper.to_array(value).ravel().tolist()
        return flat
    return list(value) if isinstance(value, Sequence) and not isinstance(value, bytes) else [value]


def _first_difference(name: str, left: Sequence[Any], right: Sequence[Any]) -> str:
    if len(left) != len(right):
        return f"{name} has {len(left)} -> {len(right)} values"
    places = [place for place, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    if not places:
        return f"{name} is written otherwise"
    first = places[0]
    return (
        f"{name}[{first}] {left[first]} -> {right[first]}, {len(places):,} of {len(left):,} values"
    )
