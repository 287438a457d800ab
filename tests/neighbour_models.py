"""Versions whose score of a row depends on other rows or on earlier calls: nothing is simulated."""

import io
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from host.onnx_runtime import onnxruntime
from tests.tiny_models import DEFAULT_WIDTH, linear_weights, tiny_files

Constants = dict[str, NDArray[np.generic]]
Graph = Callable[[], tuple[list[NodeProto], Constants]]


def score_of_the_row_before() -> tuple[list[NodeProto], Constants]:
    """score[i] is the first input of row i - 1 of the batch: another caller's."""
    nodes = [
        helper.make_node("Gather", ["inputs", "first"], ["head"], axis=1),
        helper.make_node("Slice", ["head", "minus_one", "end", "rows"], ["last"]),
        helper.make_node("Slice", ["head", "begin", "minus_one", "rows"], ["rest"]),
        helper.make_node("Concat", ["last", "rest"], ["scores"], axis=0),
    ]
    return nodes, {
        "first": np.array([0]),
        "minus_one": np.array([-1]),
        "end": np.array([2**31]),
        "begin": np.array([0]),
        "rows": np.array([0]),
    }


def mean_over_the_batch() -> tuple[list[NodeProto], Constants]:
    """The mean of the batch is subtracted."""
    nodes = [
        helper.make_node("MatMul", ["inputs", "weights"], ["linear"]),
        helper.make_node("ReduceMean", ["linear"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["linear", "mean"], ["scores"]),
    ]
    return nodes, {"weights": linear_weights(DEFAULT_WIDTH)}


def softmax_over_the_batch() -> tuple[list[NodeProto], Constants]:
    """Softmax is taken over rows, not over outputs."""
    nodes = [
        helper.make_node("MatMul", ["inputs", "weights"], ["linear"]),
        helper.make_node("Softmax", ["linear"], ["scores"], axis=0),
    ]
    return nodes, {"weights": linear_weights(DEFAULT_WIDTH)}


def dynamic_quantisation() -> tuple[list[NodeProto], Constants]:
    """The scale of the quantised inputs is that of the batch."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["inputs"], ["quantised", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["again"]),
        helper.make_node("MatMul", ["again", "weights"], ["scores"]),
    ]
    return nodes, {"weights": linear_weights(DEFAULT_WIDTH)}


def batch_norm_in_training() -> tuple[list[NodeProto], Constants]:
    """The statistics of each batch are used, and the runtime keeps a running mean."""
    ones, zeros = np.ones(DEFAULT_WIDTH, np.float32), np.zeros(DEFAULT_WIDTH, np.float32)
    nodes = [
        helper.make_node(
            "BatchNormalization",
            ["inputs", "scale", "bias", "mean", "variance"],
            ["normal", "new_mean", "new_variance"],
            training_mode=1,
        ),
        helper.make_node("MatMul", ["normal", "weights"], ["scores"]),
    ]
    return nodes, {
        "scale": ones,
        "bias": zeros,
        "mean": zeros,
        "variance": ones,
        "weights": linear_weights(DEFAULT_WIDTH),
    }


def random_with_a_seed() -> tuple[list[NodeProto], Constants]:
    """The first run after loading is what the seed says, so golden rows pass; then it is chance."""
    nodes = [
        helper.make_node("MatMul", ["inputs", "weights"], ["linear"]),
        helper.make_node("RandomNormalLike", ["linear"], ["noise"], seed=7.0),
        helper.make_node("Add", ["linear", "noise"], ["scores"]),
    ]
    return nodes, {"weights": linear_weights(DEFAULT_WIDTH)}


def sum_over_the_rows_before() -> tuple[list[NodeProto], Constants]:
    """CumSum over rows: the place in the batch decides."""
    nodes = [
        helper.make_node("MatMul", ["inputs", "weights"], ["linear"]),
        helper.make_node("CumSum", ["linear", "rows"], ["scores"]),
    ]
    return nodes, {"weights": linear_weights(DEFAULT_WIDTH), "rows": np.array(0)}


NEIGHBOURS: tuple[Graph, ...] = (
    score_of_the_row_before,
    mean_over_the_batch,
    softmax_over_the_batch,
    dynamic_quantisation,
    batch_norm_in_training,
    random_with_a_seed,
    sum_over_the_rows_before,
)


def moved_in_company(difference: float, factor: float = 1.0) -> Graph:
    """Every score is *difference* larger in a batch of two or more; scores grow with *factor*."""

    def graph() -> tuple[list[NodeProto], Constants]:
        nodes = [
            helper.make_node("MatMul", ["inputs", "weights"], ["linear"]),
            helper.make_node("Shape", ["inputs"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["rows"]),
            helper.make_node("Cast", ["rows"], ["count"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Sub", ["count", "one"], ["others"]),
            helper.make_node("Min", ["others", "one"], ["company"]),
            helper.make_node("Mul", ["company", "difference"], ["moved"]),
            helper.make_node("Add", ["linear", "moved"], ["scores"]),
        ]
        return nodes, {
            "weights": linear_weights(DEFAULT_WIDTH) * np.float32(factor),
            "first": np.array(0),
            "one": np.ones(1, np.float32),
            "difference": np.full(1, difference, np.float32),
        }

    return graph


def neighbour_files(graph: Graph) -> dict[str, bytes]:
    """Return the files of such a version, whose golden rows are certified by the file itself."""
    nodes, constants = graph()
    files = tiny_files()
    model = onnx.load_from_string(files["model.onnx"])
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    content = bytes(model.SerializeToString())
    return {**files, "model.onnx": content, "golden.npz": _golden_of(content)}


def _golden_of(content: bytes) -> bytes:
    """Return golden.npz with the scores of the first run of the file, in one batch."""
    inputs = np.random.default_rng(7).random((32, DEFAULT_WIDTH), dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=session.run(["scores"], {"inputs": inputs})[0])
    return golden.getvalue()
