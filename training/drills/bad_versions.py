"""Deliberately bad versions, made from a good one, to rehearse rollbacks with.

Each passes its own golden test and loads like any other, so that only live traffic can find it
out; each says in card.json, under "drill", what it is and what it does.
"""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract
from training.artifacts import golden_rows
from training.errors import DrillError
from training.export.lint import column_defaults
from training.export.onnx_model import OnnxModel

SCORES_BEFORE = "drill_scores_before"
NOTE = (
    "Deliberately bad, for a drill. Metrics, fairness, parity and expected shift in this card "
    "describe the good version it was made from."
)
MATRIX_SIDE = 64
"""Side of the matrices a slow version multiplies: about 20 us each."""
CALIBRATION_TRIPS = 200


@dataclass(frozen=True, eq=False)
class BadVersion:
    """A bad version's files, and which rows it is bad on.

    share   of the rows it was chosen on, exactly; 1.0 when every row is.
    column  the input whose value decides; "" when every row is bad.
    values  the values at which a row is bad.
    """

    files: dict[str, bytes]
    share: float
    column: str = ""
    values: tuple[float, ...] = ()


def faulting_version(
    files: Mapping[str, bytes], rows: NDArray[np.float32], *, column: str, share: float = 0.05
) -> BadVersion:
    """Raise inside ONNX Runtime on about *share* of the rows; a batch with one such row raises
    whole, and one without runs as before.

    files   of the good version; manifest and signature are left behind.
    rows    (N, F) float32, the population the share is of.
    column  by its values rows are chosen, as ModelContract.names says it. Its default is never
            chosen, so that a missing row does not fault.

    Raises DrillError when the column has no values to choose from.
    """
    place, values, exact = _choose_rows(files, rows, column, share)
    zero = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "drill_zero")
    nodes = [
        *_hit_nodes(),
        helper.make_node("Cast", ["drill_hit"], ["drill_index"], to=TensorProto.INT64),
        # Index 1 of a one-element tensor: ONNX Runtime checks bounds at run time and raises.
        helper.make_node("Gather", [zero.name, "drill_index"], ["drill_nothing"], axis=0),
        helper.make_node("Add", [SCORES_BEFORE, "drill_nothing"], ["scores"]),
    ]
    bad = rewrite_scores(files["model.onnx"], nodes, [zero, *_choice_constants(place, values)])
    return finish_bad_version(files, bad, "faulting", exact, column, values)


def nan_version(
    files: Mapping[str, bytes], rows: NDArray[np.float32], *, column: str, share: float = 0.05
) -> BadVersion:
    """Answer NaN on about *share* of the rows, chosen like `faulting`'s; the others as before."""
    place, values, exact = _choose_rows(files, rows, column, share)
    nan = numpy_helper.from_array(np.full((1, 1), np.nan, dtype=np.float32), "drill_nan")
    nodes = [
        *_hit_nodes(),
        helper.make_node("Cast", ["drill_hit"], ["drill_is_hit"], to=TensorProto.BOOL),
        helper.make_node("Where", ["drill_is_hit", nan.name, SCORES_BEFORE], ["scores"]),
    ]
    bad = rewrite_scores(files["model.onnx"], nodes, [nan, *_choice_constants(place, values)])
    return finish_bad_version(files, bad, "nan_scores", exact, column, values)


def crashing_version(
    files: Mapping[str, bytes], rows: NDArray[np.float32], *, column: str, share: float = 0.05
) -> BadVersion:
    """End the process that scores one of about *share* of the rows, chosen like `faulting`'s.

    INT32_MIN / -1 has no int32. The processor traps (SIGFPE, x86): onnxruntime 1.32 checks for
    zero only. For shadows, which have a process to lose; a canary would take its worker.
    """
    place, values, exact = _choose_rows(files, rows, column, share)
    constants = [
        numpy_helper.from_array(np.array(number, dtype=kind), name)
        for name, number, kind in (
            ("drill_least", np.iinfo(np.int32).min, np.int32),
            ("drill_one", 1, np.int32),
            ("drill_two", 2, np.int32),
            ("drill_nothing", 0, np.float32),
        )
    ]
    nodes = [
        *_hit_nodes(),
        helper.make_node("Cast", ["drill_hit"], ["drill_whole"], to=TensorProto.INT32),
        helper.make_node("Mul", ["drill_whole", "drill_two"], ["drill_twice"]),
        helper.make_node("Sub", ["drill_one", "drill_twice"], ["drill_divisor"]),
        helper.make_node("Div", ["drill_least", "drill_divisor"], ["drill_quotient"]),
        helper.make_node("Cast", ["drill_quotient"], ["drill_wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["drill_wide", "drill_nothing"], ["drill_zero"]),
        helper.make_node("Add", [SCORES_BEFORE, "drill_zero"], ["scores"]),
    ]
    bad = rewrite_scores(
        files["model.onnx"], nodes, [*constants, *_choice_constants(place, values)]
    )
    return finish_bad_version(files, bad, "crashing", exact, column, values)


def constant_version(files: Mapping[str, bytes], value: float = 0.5) -> BadVersion:
    """Answer *value* to everybody."""
    always = helper.make_tensor("drill_value", TensorProto.FLOAT, [1], [value])
    nodes = [
        helper.make_node("Shape", [SCORES_BEFORE], ["drill_shape"]),
        helper.make_node("ConstantOfShape", ["drill_shape"], ["scores"], value=always),
    ]
    bad = rewrite_scores(files["model.onnx"], nodes, [])
    return finish_bad_version(files, bad, "constant", 1.0, label={"value": value})


def shifted_version(files: Mapping[str, bytes], delta: float) -> BadVersion:
    """Add *delta* to every score, kept within 0 and 1."""
    constants = [
        numpy_helper.from_array(np.array(number, dtype=np.float32), name)
        for name, number in {"drill_delta": delta, "drill_low": 0.0, "drill_high": 1.0}.items()
    ]
    nodes = [
        helper.make_node("Add", [SCORES_BEFORE, "drill_delta"], ["drill_moved"]),
        helper.make_node("Clip", ["drill_moved", "drill_low", "drill_high"], ["scores"]),
    ]
    bad = rewrite_scores(files["model.onnx"], nodes, constants)
    return finish_bad_version(files, bad, "shifted", 1.0, label={"delta": delta})


def slow_version(
    files: Mapping[str, bytes],
    milliseconds: float,
    *,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> BadVersion:
    """Multiply matrices for about *milliseconds* a run on this machine, whatever the batch; the
    scores are unchanged. How many times, and what that took here, is in the card.
    """
    good, rows = files["model.onnx"], golden_inputs(files)[:1]
    base = _fastest_ns(good, rows, clock_ns)
    trial = _fastest_ns(_with_slow_loop(good, CALIBRATION_TRIPS), rows, clock_ns)
    each_ns = max(trial - base, CALIBRATION_TRIPS) / CALIBRATION_TRIPS
    trips = max(1, round(milliseconds * 1e6 / each_ns))
    label = {"asked_ms": milliseconds, "trips": trips, "trip_us": round(each_ns / 1e3, 2)}
    return finish_bad_version(files, _with_slow_loop(good, trips), "slow", 1.0, label=label)


def choose_values(
    values: NDArray[np.float32], share: float, *, never: float | None
) -> tuple[tuple[float, ...], float]:
    """Return (distinct values, their exact share of *values*), the share close to *share*.

    The most frequent value that still fits is taken first, so the share is short of the target by
    less than the rarest value left out. *never* and NaN are not taken.
    """
    distinct, counted = np.unique(values[~np.isnan(values)], return_counts=True)
    target = round(share * len(values))
    taken: list[float] = []
    total = 0
    for index in np.argsort(-counted, kind="stable").tolist():
        value, count = float(distinct[index]), int(counted[index])
        if value != never and total + count <= target:
            taken.append(value)
            total += count
    return tuple(sorted(taken)), total / len(values)


def _choose_rows(
    files: Mapping[str, bytes], rows: NDArray[np.float32], column: str, share: float
) -> tuple[int, tuple[float, ...], float]:
    contract = ModelContract.from_definition(_json(files["contract.json"]))
    if column not in contract.names:
        raise DrillError(f"no input is named {column!r}; there are {list(contract.names)}")
    place = contract.names.index(column)
    values, exact = choose_values(rows[:, place], share, never=column_defaults(contract)[place])
    if not values:
        raise DrillError(
            f"no value of {column!r} is rare enough for {share:.1%} of {len(rows)} rows; name a "
            "column of more values, or a larger share"
        )
    return place, values, exact


def _hit_nodes() -> list[Any]:
    """Nodes that give drill_hit (B, 1) float32: 1 where the column has a chosen value."""
    return [
        helper.make_node("Gather", ["inputs", "drill_place"], ["drill_column"], axis=1),
        helper.make_node("Equal", ["drill_column", "drill_values"], ["drill_equal"]),
        helper.make_node("Cast", ["drill_equal"], ["drill_ones"], to=TensorProto.FLOAT),
        # Values are distinct, so at most one is equal. (ReduceMax changed its inputs in opset 18.)
        helper.make_node("MatMul", ["drill_ones", "drill_sum"], ["drill_hit"]),
    ]


def _choice_constants(column_index: int, values: tuple[float, ...]) -> list[Any]:
    return [
        numpy_helper.from_array(np.array([column_index], dtype=np.int64), "drill_place"),
        numpy_helper.from_array(np.array([values], dtype=np.float32), "drill_values"),
        numpy_helper.from_array(np.ones((len(values), 1), dtype=np.float32), "drill_sum"),
    ]


def rewrite_scores(good: bytes, nodes: list[Any], constants: list[Any]) -> bytes:
    """Rename the graph's `scores` and let *nodes* make new ones out of it."""
    model = onnx.load_model_from_string(good)
    if any(SCORES_BEFORE in node.output for node in model.graph.node):
        raise DrillError("this version is a drill already; make a drill from a good version")
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == "scores":
                    names[index] = SCORES_BEFORE
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _with_slow_loop(good: bytes, trips: int) -> bytes:
    """Add a Loop of matrix products that depends on the batch, so that nothing folds it away."""
    weights = np.full((MATRIX_SIDE, MATRIX_SIDE), 1.0 / MATRIX_SIDE, dtype=np.float32)
    constants = [
        numpy_helper.from_array(np.array(trips, dtype=np.int64), "drill_trips"),
        numpy_helper.from_array(weights, "drill_weights"),
        numpy_helper.from_array(np.array(0.0, dtype=np.float32), "drill_nothing"),
    ]
    square = [MATRIX_SIDE, MATRIX_SIDE]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["drill_go"], ["drill_go_on"]),
            helper.make_node("MatMul", ["drill_state", "drill_weights"], ["drill_state_next"]),
        ],
        "drill_body",
        [
            helper.make_tensor_value_info("drill_trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("drill_go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("drill_state", TensorProto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info("drill_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("drill_state_next", TensorProto.FLOAT, square),
        ],
    )
    nodes = [
        helper.make_node("Size", ["inputs"], ["drill_size"]),
        helper.make_node("Cast", ["drill_size"], ["drill_seed"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["drill_weights", "drill_seed"], ["drill_start"]),
        helper.make_node("Loop", ["drill_trips", "", "drill_start"], ["drill_end"], body=body),
        helper.make_node("ReduceMean", ["drill_end"], ["drill_mean"], keepdims=0),
        helper.make_node("Mul", ["drill_mean", "drill_nothing"], ["drill_zero"]),
        helper.make_node("Add", [SCORES_BEFORE, "drill_zero"], ["scores"]),
    ]
    return rewrite_scores(good, nodes, constants)


def finish_bad_version(
    files: Mapping[str, bytes],
    bad: bytes,
    kind: str,
    share: float,
    column: str = "",
    values: tuple[float, ...] = (),
    label: Mapping[str, Any] | None = None,
) -> BadVersion:
    """Recompute the golden rows on the bad graph, leaving out the rows it is bad on, and say so."""
    inputs = golden_inputs(files)
    if column:
        contract = ModelContract.from_definition(_json(files["contract.json"]))
        chosen = np.array(values, dtype=np.float32)
        inputs = inputs[~np.isin(inputs[:, contract.names.index(column)], chosen)]
        label = {"column": column, "values": list(values), **(label or {})}
    if not len(inputs):
        raise DrillError(f"every golden row has one of the values {values} in {column!r}")
    card = _json(files["card.json"])
    card["drill"] = {
        "kind": kind,
        "share": share,
        "made_from_onnx": sha256_hex(files["model.onnx"]),
        "note": NOTE,
        **(label or {}),
    }
    made = {name: files[name] for name in ("contract.json", "reference.json")}
    made["model.onnx"] = bad
    made["golden.npz"] = golden_rows.write_golden(inputs, OnnxModel(bad).scores(inputs))
    made["card.json"] = canonical_json(card)
    return BadVersion(files=made, share=share, column=column, values=values)


def golden_inputs(files: Mapping[str, bytes]) -> NDArray[np.float32]:
    """(G, F) rows of golden.npz."""
    with np.load(io.BytesIO(files["golden.npz"]), allow_pickle=False) as archive:
        inputs: NDArray[np.float32] = archive["inputs"]
    return inputs


def _json(content: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(content)
    return parsed


def _fastest_ns(onnx_bytes: bytes, rows: NDArray[np.float32], clock_ns: Callable[[], int]) -> int:
    """The fastest of five runs: on a busy machine the others measure the neighbours."""
    model = OnnxModel(onnx_bytes)
    taken = []
    for _ in range(5):
        start = clock_ns()
        model.scores(rows)
        taken.append(clock_ns() - start)
    return min(taken)
