"""Reads a foreign ONNX file into one graph, and refuses what no adaptation can mend.

Every refusal names the node and the exporter's option that helps. Nothing is run here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, helper, inliner, version_converter

from training.errors import AdoptionError
from training.export.onnx_model import IR_VERSION

GRAPH_BYTES_MAX = 250 * 2**20
"""Bytes of a file with its weights. A version has at most 256 MiB in all."""
OPSET_MIN = 7
"""ONNX Runtime has few operators of older opsets."""
OPSET_IF_NONE = 13
"""For added nodes, where the graph itself has tree operators only."""
ML_DOMAIN = "ai.onnx.ml"
DOMAINS = ("", "ai.onnx", ML_DOMAIN, "com.microsoft")
"""Operators that ONNX Runtime has without a library of its user."""

CONTROL_FLOW = {"Loop", "Scan", "If", "SequenceMap"}
RANDOM = {
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}
BATCH_SCALED = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
"""Operators that scale all rows of a batch by its largest value."""

Graph = Any
"""onnx.GraphProto. Its type hints lack names that the package has."""
Node = Any
"""onnx.NodeProto."""
Model = Any
"""onnx.ModelProto."""


def read_graph(content: bytes, external: Mapping[str, bytes] | None = None) -> Model:
    """Return the model of an ONNX file with its weights and functions inside.

    external  name of each file with weights, as the ONNX file names it -> its content.

    The IR version becomes IR_VERSION; the model changes in nothing else that its scores depend on.
    Raises AdoptionError when the file is no ONNX file, or has a node that cannot be adapted.
    """
    model = _parse(content)
    _inline_weights(model, external or {})
    if model.functions:
        model = inliner.inline_local_functions(model)
    _refuse_nodes(model)
    _refuse_opsets(model)
    # Initializers that stand among the inputs too are constants, as files before IR 4 have them.
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = IR_VERSION
    return model


def node_name(node: Node) -> str:
    """Return how a message names a node: its operator, and its name or first output."""
    return f"{node.op_type} {node.name or (node.output[0] if node.output else '')!r}"


def attributes_of(node: Node) -> dict[str, Any]:
    """Return attribute name -> value of a node."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def opset_of(model: Model, domain: str) -> int:
    """Return the version of *domain* that a model uses; 0 if it does not use the domain."""
    names = (domain, "ai.onnx") if domain == "" else (domain,)
    return max(
        (int(item.version) for item in model.opset_import if item.domain in names), default=0
    )


def raise_opset(model: Model, domain: str, at_least: int) -> Model:
    """Return the model with at least this version of a domain, for the sake of added nodes.

    Raises AdoptionError when an operator of the model means something else in the newer version and
    cannot be converted.
    """
    present = opset_of(model, domain)
    if present >= at_least:
        return model
    # A version of a domain that has no nodes, or nodes that did not change, can simply be named.
    changed = [node for node in model.graph.node if _changed(node, domain, present, at_least)]
    if present and changed:
        model = _converted(model, domain, at_least, changed)
    others = [item for item in model.opset_import if (item.domain or "") != domain]
    others = [item for item in others if domain != "" or item.domain != "ai.onnx"]
    del model.opset_import[:]
    model.opset_import.extend([*others, helper.make_opsetid(domain, at_least)])
    return model


def _parse(content: bytes) -> Model:
    if len(content) > GRAPH_BYTES_MAX:
        raise AdoptionError(
            f"the file has {len(content)} bytes; the most is {GRAPH_BYTES_MAX}. Fewer or smaller "
            "trees (max_depth, max_leaves) make it smaller"
        )
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise AdoptionError(
            f"this is no ONNX file: {str(error)[:120]}; export the model again"
        ) from error
    if not model.graph.node or not model.graph.input or not model.graph.output:
        raise AdoptionError(
            "the ONNX file has no graph with nodes, inputs and outputs; export the model again"
        )
    return model


def _inline_weights(model: Model, external: Mapping[str, bytes]) -> None:
    """Take weights that lie in other files into the model."""
    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        if name not in external:
            raise AdoptionError(
                f"the weights {tensor.name!r} are in the file {name!r}, which is not given "
                f"(given: {sorted(external)}). Give it beside the ONNX file, or save the model as "
                "one file: onnx.save_model(model, file, save_as_external_data=False), or "
                "torch.onnx.export(..., external_data=False)"
            )
        first, length, content = _section(tensor.name, entries, external[name])
        total += length
        if total > GRAPH_BYTES_MAX:
            raise AdoptionError(
                f"the weights have more than {GRAPH_BYTES_MAX} bytes, which is the most"
            )
        tensor.raw_data = content[first : first + length]
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _section(name: str, entries: Mapping[str, str], content: bytes) -> tuple[int, int, bytes]:
    """Return where the weights begin in a file, how many bytes they have, and the file."""
    try:
        first = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(len(content) - first)))
    except ValueError:
        first, length = -1, 0
    if first < 0 or length < 0 or first + length > len(content):
        raise AdoptionError(
            f"the weights {name!r} should be bytes {entries.get('offset', '0')} and "
            f"{entries.get('length', 'all')} more of {entries['location']!r}, which has "
            f"{len(content)} bytes; the file is cut off or another one. Export the model again"
        )
    return first, length, content


def _tensors(model: Model) -> Iterator[Any]:
    """Yield every constant of a model."""
    yield from model.graph.initializer
    nodes = [*model.graph.node, *(node for item in model.functions for node in item.node)]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def _refuse_nodes(model: Model) -> None:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.type == AttributeProto.TENSOR
    }
    for node in model.graph.node:
        problem = _problem_of(node, constants, opset_of(model, ""))
        if problem:
            raise AdoptionError(f"the graph has the node {node_name(node)}: {problem}")
    if model.graph.sparse_initializer:
        raise AdoptionError(
            f"the graph has the sparse weights "
            f"{model.graph.sparse_initializer[0].values.name!r}; export dense weights"
        )


def _problem_of(node: Node, constants: Mapping[str, Any], opset: int) -> str:
    """Return why a node cannot be adapted, with the way out; "" if it can."""
    # Operators that gateways cannot run, or not in bounded time.
    if node.domain not in DOMAINS:
        return (
            f"an operator of the custom domain {node.domain!r}, which ONNX Runtime does not have. "
            "Export with operators of ONNX only (tf2onnx: without --extra_opset; skl2onnx: without "
            "custom converters)"
        )
    nested = any(
        item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for item in node.attribute
    )
    if node.op_type in CONTROL_FLOW or nested:
        return (
            "control flow with graphs inside, which may take any time for a row. Export without it "
            "(torch: torch.onnx.export(..., dynamo=True) of a model without loops over data; "
            'skl2onnx GaussianProcess and neighbours: options={"optim": "cdist"})'
        )
    # Operators of training, and operators that mix the rows of a batch.
    if node.op_type in RANDOM:
        return "it draws random numbers. Export the model in evaluation mode (torch: model.eval())"
    if node.op_type in BATCH_SCALED:
        return (
            "dynamic quantisation scales every row by the other rows of its batch. Keep the model "
            "in float32, or use onnxruntime.quantization.quantize_static"
        )
    if node.op_type == "BatchNormalization" and _trains(node, opset):
        return (
            "it is in training mode, so a row's score depends on the rows beside it. Export in "
            "evaluation mode (torch: model.eval(), training=TrainingMode.EVAL)"
        )
    if node.op_type == "Dropout" and _drops(node, constants):
        return (
            "it is in training mode, so it draws random numbers. Export in evaluation mode (torch: "
            "model.eval(), training=TrainingMode.EVAL)"
        )
    return ""


def _trains(node: Node, opset: int) -> bool:
    """Whether a BatchNormalization computes means of the batch."""
    if attributes_of(node).get("training_mode", 0):
        return True
    # Before opset 14 further outputs meant training.
    return opset < 14 and sum(1 for name in node.output if name) > 1


def _drops(node: Node, constants: Mapping[str, Any]) -> bool:
    """Whether a Dropout draws, or may do so by an input that is computed."""
    if len(node.input) < 3 or not node.input[2]:
        return False
    constant = constants.get(node.input[2])
    return constant is None or bool(onnx.numpy_helper.to_array(constant).any())


def _refuse_opsets(model: Model) -> None:
    """Refuse operator versions that are too old to run, or not published yet."""
    opset = opset_of(model, "")
    used = any(node.domain in ("", "ai.onnx") for node in model.graph.node)
    if used and opset < OPSET_MIN:
        raise AdoptionError(
            f"the graph is of opset {opset}; ONNX Runtime runs opset {OPSET_MIN} and later. Export "
            "with opset 21 (skl2onnx and onnxmltools: target_opset=21; torch: opset_version=21; "
            "tf2onnx: --opset 21)"
        )
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise AdoptionError(
            f"the graph is of opset {opset}; opset {newest} is the newest that is known here. "
            "Export with opset 21 (target_opset=21, opset_version=21)"
        )


def _changed(node: Node, domain: str, old: int, new: int) -> bool:
    """Whether an operator of *domain* is defined differently in the newer version."""
    if (node.domain if node.domain != "ai.onnx" else "") != domain or not old:
        return False
    try:
        schemas = [onnx.defs.get_schema(node.op_type, version, domain) for version in (old, new)]
    except onnx.defs.SchemaError:
        return True
    return schemas[0].since_version != schemas[1].since_version


def _converted(model: Model, domain: str, version: int, changed: list[Node]) -> Model:
    if domain == "":
        try:
            return version_converter.convert_version(model, version)
        except Exception as error:
            raise AdoptionError(
                f"the graph is of opset {opset_of(model, '')}, and opset {version} is needed; the "
                f"node {node_name(changed[0])} cannot be converted ({str(error)[:120]}). Export "
                "with opset 21 (target_opset=21, opset_version=21)"
            ) from error
    # Of ai.onnx.ml only the first LabelEncoder reads differently in version 4.
    for node in changed:
        if node.op_type == "LabelEncoder" and "classes_strings" in attributes_of(node):
            _modernise_label_encoder(node, texts_in=_takes_texts(model, node))
    return model


def _takes_texts(model: Model, node: Node) -> bool:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.input, *inferred.value_info)
    }
    return types.get(node.input[0]) == TensorProto.STRING


def _modernise_label_encoder(node: Node, *, texts_in: bool) -> None:
    """Give a LabelEncoder of version 1 the attributes of version 2, which say the same."""
    attributes = attributes_of(node)
    words = [word.decode() for word in attributes["classes_strings"]]
    codes = list(range(len(words)))
    new: dict[str, Any] = (
        {
            "keys_strings": words,
            "values_int64s": codes,
            "default_int64": attributes.get("default_int64", -1),
        }
        if texts_in
        else {
            "keys_int64s": codes,
            "values_strings": words,
            "default_string": attributes.get("default_string", b"_Unused"),
        }
    )
    del node.attribute[:]
    node.attribute.extend([helper.make_attribute(name, value) for name, value in new.items()])
