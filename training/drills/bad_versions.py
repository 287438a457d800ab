"""Makes bad versions from a good version, to rehearse rollbacks.

A bad version passes its golden test and loads like any other, so that only live traffic can find
it. Its card.json says under "drill" what it is. The ONNX graph of the good version stays: nodes
behind it compute new scores from its scores.
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
from registry.version_proof import GOLDEN_ROWS_MIN
from training.artifacts import golden_rows
from training.errors import DrillError
from training.export.lint import column_defaults
from training.export.onnx_model import OnnxModel

SCORES_BEFORE = "drill_scores_before"
NOTE = (
    "Deliberately bad, for a drill. Metrics, fairness, parity and expected shift in this card "
    "describe the good version that it was made from."
)
MATRIX_SIDE = 64
"""Side of the matrices that a slow version multiplies. A product takes about 20 us."""
ZERO = 0.0
"""A row of zeros is never bad, because registry.version_proof tries one."""
CALIBRATION_TRIPS = 200
"""Products with which the time of one product is measured."""


@dataclass(frozen=True, eq=False)
class BadVersion:
    """The files of a bad version, and the rows for which it is bad.

    share   exact share of the given rows for which it is bad; 1.0 if it is bad for every row.
    column  the model input that decides; "" if every row is bad.
    values  values of *column* at which a row is bad.
    """

    files: dict[str, bytes]
    share: float
    column: str = ""
    values: tuple[float, ...] = ()


def faulting_version(
    files: Mapping[str, bytes], rows: NDArray[np.float32], *, column: str, share: float = 0.05
) -> BadVersion:
    """Make a version that raises inside ONNX Runtime for about *share* of the rows.

    A batch with one such row raises. Other batches are scored as before.

    files   files of the good version. Its manifest and signature are not used.
    rows    (N, F) float32, the rows among which the share is counted.
    column  name of a model input, as in ModelContract.names. Rows are chosen by its value. Its
            default is never chosen, so that a missing row does not raise.

    Raises DrillError when no values of the column fit the share.
    """
    column_index, values, exact_share = _choose_rows(files, rows, column, share)
    zero = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "drill_zero")
    nodes = [
        *_hit_nodes(),
        helper.make_node("Cast", ["drill_hit"], ["drill_index"], to=TensorProto.INT64),
        # A one-element tensor has no index 1. ONNX Runtime checks that at run time, and raises.
        helper.make_node("Gather", [zero.name, "drill_index"], ["drill_nothing"], axis=0),
        helper.make_node("Add", [SCORES_BEFORE, "drill_nothing"], ["scores"]),
    ]
    constants = [zero, *_choice_constants(column_index, values)]
    bad = rewrite_scores(files["model.onnx"], nodes, constants)
    return finish_bad_version(files, bad, "faulting", exact_share, column, values)


def nan_version(
    files: Mapping[str, bytes], rows: NDArray[np.float32], *, column: str, share: float = 0.05
) -> BadVersion:
    """Make a version that scores NaN for about *share* of the rows.

    Arguments and errors as in `faulting_version`.
    """
    column_index, values, exact_share = _choose_rows(files, rows, column, share)
    nan = numpy_helper.from_array(np.full((1, 1), np.nan, dtype=np.float32), "drill_nan")
    nodes = [
        *_hit_nodes(),
        helper.make_node("Cast", ["drill_hit"], ["drill_is_hit"], to=TensorProto.BOOL),
        helper.make_node("Where", ["drill_is_hit", nan.name, SCORES_BEFORE], ["scores"]),
    ]
    constants = [nan, *_choice_constants(column_index, values)]
    bad = rewrite_scores(files["model.onnx"], nodes, constants)
    return finish_bad_version(files, bad, "nan_scores", exact_share, column, values)


def crashing_version(
    files: Mapping[str, bytes], rows: NDArray[np.float32], *, column: str, share: float = 0.05
) -> BadVersion:
    """Make a version that ends the scoring process for about *share* of the rows.

    Arguments and errors as in `faulting_version`. Use it as a shadow, which scores in a process of
    its own. A canary would end its worker.
    """
    column_index, values, exact_share = _choose_rows(files, rows, column, share)
    # INT32_MIN / -1 is no int32, and x86 processors raise SIGFPE. onnxruntime 1.32 only checks for
    # a divisor of zero.
    constants = [
        numpy_helper.from_array(np.array(number, dtype=kind), name)
        for name, number, kind in (
            ("drill_least", np.iinfo(np.int32).min, np.int32),
            ("drill_one", 1, np.int32),
            ("drill_two", 2, np.int32),
            ("drill_nothing", 0, np.float32),
        )
    ]
    # The divisor is 1 for other rows and -1 for chosen rows.
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
        files["model.onnx"], nodes, [*constants, *_choice_constants(column_index, values)]
    )
    return finish_bad_version(files, bad, "crashing", exact_share, column, values)


def constant_version(files: Mapping[str, bytes], value: float = 0.5) -> BadVersion:
    """Make a version that scores *value* for every row."""
    always = helper.make_tensor("drill_value", TensorProto.FLOAT, [1], [value])
    nodes = [
        helper.make_node("Shape", [SCORES_BEFORE], ["drill_shape"]),
        helper.make_node("ConstantOfShape", ["drill_shape"], ["scores"], value=always),
    ]
    bad = rewrite_scores(files["model.onnx"], nodes, [])
    return finish_bad_version(files, bad, "constant", 1.0, label={"value": value})


def shifted_version(files: Mapping[str, bytes], delta: float) -> BadVersion:
    """Make a version whose scores are higher by *delta*, within 0 and 1."""
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
    """Make a version whose runs take about *milliseconds* longer on this machine.

    It multiplies matrices in every run, for any batch size. The scores are unchanged. The card has
    the number of products and the measured time of one product.
    """
    # Measure the time of one product on this machine.
    good, rows = files["model.onnx"], golden_inputs(files)[:1]
    base_ns = _fastest_ns(good, rows, clock_ns)
    trial_ns = _fastest_ns(_with_slow_loop(good, CALIBRATION_TRIPS), rows, clock_ns)
    trip_ns = max(trial_ns - base_ns, CALIBRATION_TRIPS) / CALIBRATION_TRIPS
    trips = max(1, round(milliseconds * 1e6 / trip_ns))
    label = {"asked_ms": milliseconds, "trips": trips, "trip_us": round(trip_ns / 1e3, 2)}
    return finish_bad_version(files, _with_slow_loop(good, trips), "slow", 1.0, label=label)


def choose_values(
    values: NDArray[np.float32], share: float, *, never: float | None
) -> tuple[tuple[float, ...], float]:
    """Choose distinct values whose rows are close to *share* of all; return them and their share.

    The most frequent value that still fits is chosen next. So the share falls short of *share* by
    less than the share of the rarest value that was not chosen.

    never  a value that is not chosen. NaN and zero are not chosen either.
    """
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    target = round(share * len(values))
    chosen: list[float] = []
    total = 0
    for index in np.argsort(-counts, kind="stable").tolist():
        value, count = float(distinct[index]), int(counts[index])
        if value not in (never, ZERO) and total + count <= target:
            chosen.append(value)
            total += count
    return tuple(sorted(chosen)), total / len(values)


def _choose_rows(
    files: Mapping[str, bytes], rows: NDArray[np.float32], column: str, share: float
) -> tuple[int, tuple[float, ...], float]:
    """Return the column's index, the values at which a row is bad, and the exact share."""
    contract = ModelContract.from_definition(_json(files["contract.json"]))
    if column not in contract.names:
        raise DrillError(
            f"no input is named {column!r}; the model's inputs are {list(contract.names)}"
        )
    column_index = contract.names.index(column)
    values, exact_share = choose_values(
        rows[:, column_index], share, never=column_defaults(contract)[column_index]
    )
    if not values:
        raise DrillError(
            f"no value of {column!r} is rare enough for {share:.1%} of {len(rows)} rows; name a "
            "column with more values, or a larger share"
        )
    return column_index, values, exact_share


def _hit_nodes() -> list[Any]:
    """Return nodes that compute drill_hit, (B, 1) float32: 1 for rows with a chosen value."""
    return [
        helper.make_node("Gather", ["inputs", "drill_place"], ["drill_column"], axis=1),
        helper.make_node("Equal", ["drill_column", "drill_values"], ["drill_equal"]),
        helper.make_node("Cast", ["drill_equal"], ["drill_ones"], to=TensorProto.FLOAT),
        # Values are distinct, so at most one is equal, and the sum is 0 or 1. ReduceMax would need
        # other inputs from opset 18 on.
        helper.make_node("MatMul", ["drill_ones", "drill_sum"], ["drill_hit"]),
    ]


def _choice_constants(column_index: int, values: tuple[float, ...]) -> list[Any]:
    return [
        numpy_helper.from_array(np.array([column_index], dtype=np.int64), "drill_place"),
        numpy_helper.from_array(np.array([values], dtype=np.float32), "drill_values"),
        numpy_helper.from_array(np.ones((len(values), 1), dtype=np.float32), "drill_sum"),
    ]


def rewrite_scores(good: bytes, nodes: list[Any], constants: list[Any]) -> bytes:
    """Append *nodes* to a graph. They read SCORES_BEFORE, its former output, and write `scores`.

    Raises DrillError when the graph is a bad version already.
    """
    model = onnx.load_model_from_string(good)
    if any(SCORES_BEFORE in node.output for node in model.graph.node):
        raise DrillError("this version is bad already; make a bad version from a good version")
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
    """Append a loop of *trips* matrix products to a graph, without changing the scores."""
    # The loop's body multiplies its state by a matrix that keeps it bounded.
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
    # The start depends on the batch, so that ONNX Runtime cannot fold the loop into a constant.
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
    """Return the bad version of graph *bad*, with golden rows that pass and a card that says so.

    kind   name of the drill in the card.
    label  further facts for the card.

    Raises DrillError when the version is bad for every golden row.
    """
    # Leave out the golden rows for which the version is bad.
    inputs = golden_inputs(files)
    if column:
        contract = ModelContract.from_definition(_json(files["contract.json"]))
        bad_values = np.array(values, dtype=np.float32)
        inputs = inputs[~np.isin(inputs[:, contract.names.index(column)], bad_values)]
        label = {"column": column, "values": list(values), **(label or {})}
    if not len(inputs):
        raise DrillError(
            f"every golden row has one of the values {values} in {column!r}; choose another column "
            "or a smaller share"
        )
    # A registration asks for more rows than may be left, so that they are repeated.
    inputs = np.resize(inputs, (max(len(inputs), GOLDEN_ROWS_MIN), inputs.shape[1]))
    # Say in the card what the version is.
    card = _json(files["card.json"])
    card.pop("parity", None)  # the certificate is of the good file
    card["drill"] = {
        "kind": kind,
        "share": share,
        "made_from_onnx": sha256_hex(files["model.onnx"]),
        "note": NOTE,
        **(label or {}),
    }
    # Write the files. The golden scores are those of the bad graph.
    bad_files = {name: files[name] for name in ("contract.json", "reference.json")}
    bad_files["model.onnx"] = bad
    bad_files["golden.npz"] = golden_rows.write_golden(inputs, OnnxModel(bad).scores(inputs))
    bad_files["card.json"] = canonical_json(card)
    return BadVersion(files=bad_files, share=share, column=column, values=values)


def golden_inputs(files: Mapping[str, bytes]) -> NDArray[np.float32]:
    """Return the inputs of golden.npz, (G, F) float32."""
    with np.load(io.BytesIO(files["golden.npz"]), allow_pickle=False) as archive:
        inputs: NDArray[np.float32] = archive["inputs"]
    return inputs


def _json(content: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(content)
    return parsed


def _fastest_ns(onnx_bytes: bytes, rows: NDArray[np.float32], clock_ns: Callable[[], int]) -> int:
    """Return the time of the fastest of five runs. Slower runs measure the load of the machine."""
    model = OnnxModel(onnx_bytes)
    durations_ns = []
    for _ in range(5):
        start = clock_ns()
        model.scores(rows)
        durations_ns.append(clock_ns() - start)
    return min(durations_ns)
