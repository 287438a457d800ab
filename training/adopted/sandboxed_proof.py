"""Proves an adapted graph in a sandboxed child, because the graph is run there.

This process and the child send each other messages of `host.sandbox.exchange`. A hostile graph
may write the child's answer, so it is checked; the registry proves the version again.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from host.sandbox.exchange import (
    MalformedMessageError,
    Message,
    pack_message,
    unpack_message,
)
from host.sandbox.run import (
    Isolation,
    SandboxError,
    SandboxLimits,
    SandboxTask,
    choose_isolation,
    run_in_sandbox,
)
from host.text import escape_controls
from registry.golden import ScoreTolerance
from training.adopted.proven_graph import ProvenGraph, prove_graph
from training.adoption.foreign import (
    Adaptation,
    ColumnSource,
    ForeignInput,
    ForeignModel,
    ForeignOutput,
)
from training.errors import AdoptionError

MODULE = "training.adopted.sandboxed_proof"
ROOMS = ("access", "features", "host", "journal", "protos", "registry", "stats", "training")
"""Rooms that the child imports."""
LIMITS = SandboxLimits()
SENTENCE_MAX = 2_000


def prove_in_sandbox(
    foreign: ForeignModel,
    adaptation: Adaptation,
    contract: ModelContract,
    sample: NDArray[np.float32],
    exact: Mapping[str, NDArray[Any]],
    *,
    threshold: float,
    isolation: Isolation | None = None,
    limits: SandboxLimits = LIMITS,
    progress: Callable[[str], None] = lambda _: None,
) -> ProvenGraph:
    """Do as `prove_graph` does, in a child process. None for *isolation* chooses one."""
    # What the proof needs: the graph, the answers as an adaptation and a contract, and rows.
    numbers = {name: values for name, values in exact.items() if values.dtype != object}
    request = Message(
        {
            "foreign": {
                "origin": foreign.origin,
                "truth_by": foreign.truth_by,
                "sample_rows": foreign.sample_rows,
                "inputs": [asdict(item) for item in foreign.inputs],
                "outputs": [asdict(item) for item in foreign.outputs],
            },
            "adaptation": asdict(adaptation),
            "contract": contract.definition(),
            "threshold": threshold,
        },
        {
            "sample": sample,
            **{f"given/{name}": values for name, values in numbers.items()},
            **{f"rows/{name}": values for name, values in foreign.rows.items()},
            **{f"truth/{name}": values for name, values in foreign.truth.items()},
            **{f"exact/{name}": values for name, values in foreign.truth_exact.items()},
        },
        {"onnx": foreign.onnx},
    )
    # The child has no files, and its answer is read as hostile.
    task = SandboxTask(module=MODULE, packages=ROOMS, request=pack_message(request))
    try:
        answered = run_in_sandbox(task, limits, isolation or choose_isolation(), progress)
        message = unpack_message(answered)
        # A refusal is a sentence for the user; it is raised below.
        if "refused" not in message.document:
            return _proven(message, contract)
    except SandboxError as error:
        raise AdoptionError(f"the graph was not proven: {error}") from error
    except (MalformedMessageError, KeyError, TypeError, ValueError) as error:
        raise AdoptionError(
            "the graph was not proven: the report of its child is not one that Turnout's code "
            f"writes ({type(error).__name__}), so the graph may have written it"
        ) from error
    raise AdoptionError(escape_controls(str(message.document["refused"])[:SENTENCE_MAX]))


def _proven(message: Message, contract: ModelContract) -> ProvenGraph:
    document, arrays = message.document, message.arrays
    outputs = len(contract.outputs)
    inputs, golden, scores = (_floats(arrays[name]) for name in ("inputs", "golden", "scores"))
    fits = inputs.shape == (len(inputs), contract.width) and golden.shape == (len(inputs), outputs)
    if not fits or scores.ndim != 2 or scores.shape[1] != outputs:
        raise MalformedMessageError("its rows do not fit the contract")
    tolerance = document["tolerance"]
    return ProvenGraph(
        onnx=message.files["onnx"],
        native=dict(document["native"]),
        graph=dict(document["graph"]),
        library=dict(document["library"]),
        by_library=document["by_library"] is True,
        tolerance=ScoreTolerance(float(tolerance["absolute"]), float(tolerance["relative"])),
        golden_inputs=inputs,
        golden_outputs=golden,
        scores=scores,
    )


def _floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype != np.float32:
        raise MalformedMessageError("its numbers are not float32")
    return array


def answer(request: bytes, step: Callable[[str], None]) -> bytes:
    """Return the answer to *request*. The child calls it."""
    message = unpack_message(request)
    document, arrays = message.document, message.arrays
    # The foreign model as the parent has it.
    described = document["foreign"]
    foreign = ForeignModel(
        origin=described["origin"],
        onnx=message.files["onnx"],
        inputs=tuple(_input(item) for item in described["inputs"]),
        outputs=tuple(
            ForeignOutput(**{**item, "classes": tuple(item["classes"])})
            for item in described["outputs"]
        ),
        rows=_below(arrays, "rows/"),
        sample_rows=described["sample_rows"],
        truth=_below(arrays, "truth/"),
        truth_exact=_below(arrays, "exact/"),
        truth_by=described["truth_by"],
    )
    # The proof.
    step("adapting and certifying the graph")
    try:
        proven = prove_graph(
            foreign,
            _adaptation(document["adaptation"]),
            ModelContract.from_definition(document["contract"]),
            arrays["sample"],
            _below(arrays, "given/"),
            threshold=document["threshold"],
        )
    except AdoptionError as error:
        return pack_message(Message({"refused": str(error)}))
    # The adapted graph, golden rows, and what was compared.
    return pack_message(
        Message(
            {
                "native": proven.native,
                "graph": proven.graph,
                "library": proven.library,
                "by_library": proven.by_library,
                "tolerance": asdict(proven.tolerance),
            },
            {
                "inputs": proven.golden_inputs,
                "golden": proven.golden_outputs,
                "scores": proven.scores,
            },
            {"onnx": proven.onnx},
        )
    )


def _input(item: Mapping[str, Any]) -> ForeignInput:
    categories = tuple(tuple(words) for words in item["categories"])
    return ForeignInput(item["name"], item["kind"], tuple(item["columns"]), categories)


def _adaptation(item: Mapping[str, Any]) -> Adaptation:
    columns = tuple(
        ColumnSource(**{**source, "dictionary": tuple(source["dictionary"])})
        for source in item["columns"]
    )
    return Adaptation(columns, item["output"], tuple(item["selected"]), item["transform"])


def _below(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names begin with *prefix*, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
