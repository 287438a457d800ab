"""Builds the steps of a native model (ingress/src/accel/native_model) from tensors of a graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.models.steps.tree_graph import (
    BOOL,
    DOUBLE,
    FLOAT,
    INPUTS,
    INT64,
    INTEGERS,
    STRING,
    GraphReader,
    NotNativeError,
    numbers_of,
)

Step = tuple[str, list[int], list[int], list[float], Any]
"""Kind, positions of the values that it reads, integers, numbers and turnout_ingress.Trees."""
TEXT = 4
"""Kind of a slot of texts. Steps have the number of each text in StepBuilder.texts, as an int64."""
KINDS = {FLOAT: 0, DOUBLE: 1, BOOL: 2, STRING: TEXT} | dict.fromkeys(INTEGERS, 3)
"""Element type of a tensor -> how steps number it. Integers of all sizes are int64."""
INTEGER_MAX = 2**53
"""Up to it, every int64 is a float64, as which steps have it."""
STEPS_MAX = 8_192
"""An isolation forest of 100 trees, as skl2onnx writes it, has some 2,300 steps."""
STACKED_MAX = 1_024
"""Matrices of one tensor of three dimensions."""
COMPARED = {"less", "less_or_equal", "greater", "greater_or_equal", "equal"}
"""Steps of two numbers whose value is a bool."""
FOR_TEXTS = {"columns", "concat", "where", "equal", "look_up", "one_hot"}
"""Steps that only compare numbers of texts, or hand them on."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the steps have a tensor of two dimensions, (R, width).

    position  0: the inputs of the model; n: the value of step n - 1.
    width     number of columns.
    kind      element type, as KINDS.
    constant  it has one row, which counts for all.
    flat      it has one dimension, (R,), or is (1, R).
    """

    position: int
    width: int
    kind: int = KINDS[FLOAT]
    constant: bool = False
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """A tensor of three dimensions, as matrices of one width and kind.

    axis  dimension that counts the matrices: 0 is (n, R, width), and 1 is (R, n, width).
    """

    slots: tuple[Slot, ...]
    axis: int

    def __post_init__(self) -> None:
        """Check the matrices. NotNativeError: they differ, or are too many."""
        alike = {(slot.width, slot.kind, slot.flat) for slot in self.slots}
        if len(alike) != 1 or not 0 < len(self.slots) <= STACKED_MAX:
            raise NotNativeError(f"{len(self.slots)} matrices of one tensor, or unlike ones")

    @property
    def width(self) -> int:
        """Number of columns of each matrix."""
        return self.slots[0].width


class StepBuilder:
    """The steps so far, and where they have each tensor.

    Every method that reads a tensor raises NotNativeError if no step can replace it.
    """

    def __init__(self, graph: GraphReader, width: int) -> None:
        """Begin with the inputs of a graph, which have *width* columns."""
        self.steps: list[Step] = []
        self.slots: dict[str, Slot | Stack] = {INPUTS: Slot(0, width)}
        self.shapes: dict[str, Slot] = {}
        """Tensors that are the shape of a slot."""
        self.texts: dict[bytes, int] = {}
        """All texts of the model -> their numbers."""
        self.narrower: dict[int, Slot] = {}
        """Position of float64 numbers that were widened -> where they are float32."""
        self.index_bounds: dict[int, int] = {}
        """Position of an index that ArgMax or ArgMin finds -> of how many columns it is one."""
        self.weights = 0
        """Weights of all products so far."""
        self._readers = graph.readers
        self.constants = dict(graph.constants)
        for node in graph.graph.node:
            if node.op_type == "Constant" and node.domain == "":
                tensor = next((item.t for item in node.attribute if item.HasField("t")), None)
                self.constants |= {} if tensor is None else {node.output[0]: tensor}

    def add(
        self,
        kind: str,
        sources: list[Slot],
        integers: Sequence[int],
        width: int,
        numbers: Sequence[float] = (),
        of: int | None = None,
        trees: Any = None,  # noqa: ANN401  turnout_ingress.Trees
    ) -> Slot:
        """Add a step and return its slot.

        of  element type of its value; None: that of its first source.
        """
        if any(source.kind == TEXT for source in sources) and kind not in FOR_TEXTS:
            raise NotNativeError(f"{kind} reads texts")
        flat = any(source.flat for source in sources)
        if flat and any(source.width > 1 for source in sources):
            raise NotNativeError(f"{kind} reads a tensor of one dimension and a wider one")
        if len(self.steps) >= STEPS_MAX:
            raise NotNativeError(f"it has more than {STEPS_MAX} steps")
        positions = [source.position for source in sources]
        self.steps.append((kind, positions, list(integers), list(numbers), trees))
        constant = bool(sources) and all(source.constant for source in sources)
        kept = sources[0].kind if of is None else of
        return Slot(len(self.steps), width, kept, constant, flat)

    def source(self, name: str) -> Slot | Stack:
        """Return the slots of a tensor, which may be a constant."""
        slot = self.slots.get(name)
        if slot is not None:
            return slot
        values = self.constant(name)
        kind, numbers = KINDS[self.constants[name].data_type], values.astype(np.float64)
        if kind == KINDS[INT64] and np.abs(numbers).max(initial=0) > INTEGER_MAX:
            raise NotNativeError(f"the constant {name[:40]!r} has integers above 2^53")
        # A constant of several rows stands beside a tensor of three dimensions.
        rows = numbers.reshape(-1, numbers.shape[-1] if numbers.ndim else 1)
        if len(rows) == 1:
            self.slots[name] = self.row(rows[0].tolist(), kind)
        elif numbers.ndim == 2 or (numbers.ndim == 3 and 1 in numbers.shape[:2]):
            axis = 0 if numbers.ndim == 3 and numbers.shape[1] == 1 else 1
            slots = tuple(self.row(row.tolist(), kind) for row in rows[:STACKED_MAX])
            self.slots[name] = Stack(slots, axis)
        else:
            raise NotNativeError(f"the constant {name[:40]!r} has the shape {numbers.shape}")
        return self.slots[name]

    def matrix(self, name: str) -> Slot:
        """Return the slot of a tensor of two dimensions."""
        slot = self.source(name)
        if isinstance(slot, Stack):
            raise NotNativeError(f"the tensor {name[:40]!r} has three dimensions")
        if slot.flat:
            raise NotNativeError(f"the tensor {name[:40]!r} has one dimension")
        return slot

    def row(self, numbers: list[float], kind: int = KINDS[FLOAT]) -> Slot:
        """Add a constant row."""
        slot = self.add("constant", [], [library_kind(kind)], len(numbers), numbers, of=kind)
        return replace(slot, constant=True)

    def text(self, text: bytes) -> float:
        """Return the number of a text."""
        return float(self.texts.setdefault(text, len(self.texts)))

    def constant(self, name: str) -> NDArray[Any]:
        """Return a constant, texts as their numbers. NotNativeError: *name* is none."""
        constant = self.constants.get(name)
        if constant is None:
            raise NotNativeError(f"the tensor {name[:40]!r} is no constant")
        if constant.data_type == STRING:
            numbers = [self.text(text) for text in constant.string_data]
            if len(numbers) != np.prod([int(size) for size in constant.dims], dtype=object):
                raise NotNativeError("a constant has other texts than its shape says")
            return np.array(numbers, np.float64).reshape(tuple(constant.dims))
        return numbers_of(constant)

    def each(self, make: Callable[..., Slot], *tensors: Slot | Stack) -> Slot | Stack:
        """Apply *make* to matrices; if some tensors are stacks, to each matrix of them."""
        stacks = [tensor for tensor in tensors if isinstance(tensor, Stack)]
        if not stacks:
            return make(*tensors)
        axes, counts = {stack.axis for stack in stacks}, {len(stack.slots) for stack in stacks}
        beside = [tensor for tensor in tensors if isinstance(tensor, Slot)]
        # Rows of a matrix stand beside rows, and not beside the matrices of a stack.
        unlike = len(axes) > 1 or len(counts - {1}) > 1 or any(slot.flat for slot in beside)
        if unlike or (1 in axes and not all(slot.constant for slot in beside)):
            raise NotNativeError("tensors of three dimensions that do not fit each other")
        slots = tuple(
            make(
                *(
                    tensor.slots[at % len(tensor.slots)] if isinstance(tensor, Stack) else tensor
                    for tensor in tensors
                )
            )
            for at in range(max(counts))
        )
        return Stack(slots, stacks[0].axis)

    def map(self, kind: str, tensor: Slot | Stack, of: int | None = None) -> Slot | Stack:
        """Add a step for each number of a tensor."""
        return self.each(lambda slot: self.add(kind, [slot], [], slot.width, of=of), tensor)

    def pairs(self, kind: str, left: Slot | Stack, right: Slot | Stack) -> Slot | Stack:
        """Add a step of two operands, of which each may have three dimensions."""
        return self.each(lambda one, other: self.pair(kind, one, other), left, right)

    def pair(self, kind: str, left: Slot, right: Slot) -> Slot:
        """Add a step of two operands. A bias is put into the product before it."""
        width = max(left.width, right.width)
        if kind == "add" and self._take_bias(left, right):
            return left
        if kind == "add" and self._take_bias(right, left):
            return right
        of = KINDS[BOOL] if kind in COMPARED else None
        return self.add(kind, [left, right], [], width, of=of)

    def _take_bias(self, product: Slot, bias: Slot) -> bool:
        """Move a constant that was just read into the product of weights before it, if it fits.

        Call this only if nothing but an addition reads the product.
        """
        last = len(self.steps)
        if (product.position, bias.position, bias.width) != (last - 1, last, product.width):
            return False
        fits = last > 1 and (self.steps[-2][0], self.steps[-1][0]) == ("dense", "constant")
        if not fits or self._reads_of(product) != 1 or any(self.steps[-2][3][-bias.width :]):
            return False
        moved = self.steps.pop()[3]
        self.steps[-1][3][-bias.width :] = moved
        self.slots = {name: slot for name, slot in self.slots.items() if slot != bias}
        return True

    def take_relu(self, name: str, slot: Slot) -> bool:
        """Put a Relu into the product of weights that computes tensor *name*, if it fits."""
        alone = slot.position == len(self.steps) and len(self._readers.get(name, ())) == 1
        fits = alone and self.steps[-1][0] == "dense"
        if fits:
            self.steps[-1][2][2] = 1
        return fits

    def _reads_of(self, slot: Slot) -> int:
        """Return how many nodes read the tensors of a slot."""
        names = [name for name, at in self.slots.items() if at == slot]
        return sum(len(self._readers.get(name, ())) for name in names)


def library_kind(kind: int) -> int:
    """Return the number that the native library has for a kind. Texts are int64 there."""
    return KINDS[INT64] if kind == TEXT else kind


def used_steps(steps: Sequence[Step], last: int) -> list[Step]:
    """Return the steps that lead to the value at position *last*, numbered anew."""
    needed = {last}
    for at in range(last, 0, -1):
        if at in needed:
            needed.update(steps[at - 1][1])
    kept = sorted(needed - {0})
    position_of = {0: 0} | {at: new for new, at in enumerate(kept, 1)}
    return [
        (kind, [position_of[at] for at in sources], integers, numbers, trees)
        for kind, sources, integers, numbers, trees in (steps[at - 1] for at in kept)
    ]
