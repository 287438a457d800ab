"""Builds the steps of a native model (ingress/src/accel/native_model) from tensors of a graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.models.tree_graph import (
    BOOL,
    DOUBLE,
    FLOAT,
    INPUTS,
    INT64,
    GraphReader,
    NotNativeError,
    numbers_of,
)

Step = tuple[str, list[int], list[int], list[float], Any]
"""Kind, positions of the values that it reads, integers, numbers and turnout_ingress.Trees."""
KINDS = {FLOAT: 0, DOUBLE: 1, BOOL: 2, INT64: 3}
"""Element type of a tensor -> how steps number it."""
INTEGER_MAX = 2**53
"""Up to it, every int64 is a float64, as which steps have it."""
COMPARED = {"less", "less_or_equal", "greater", "greater_or_equal", "equal"}
"""Steps of two numbers whose value is a bool."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the steps have a tensor.

    position  0: the inputs of the model; n: the value of step n - 1.
    width     number of columns.
    kind      element type, as KINDS.
    middle    it is (R, 1, width) instead of (R, width).
    """

    position: int
    width: int
    kind: int = KINDS[FLOAT]
    middle: bool = False


class StepBuilder:
    """The steps so far, and where they have each tensor.

    Every method that reads a tensor raises NotNativeError if no step can replace it.
    """

    def __init__(self, graph: GraphReader, width: int) -> None:
        """Begin with the inputs of a graph, which have *width* columns."""
        self.steps: list[Step] = []
        self.slots = {INPUTS: Slot(0, width)}
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
        if any(source.middle for source in sources) and kind not in ("cast", "concat"):
            raise NotNativeError(f"{kind} reads a tensor of three dimensions")
        positions = [source.position for source in sources]
        self.steps.append((kind, positions, list(integers), list(numbers), trees))
        middle = any(source.middle for source in sources)
        kept = sources[0].kind if of is None else of
        return Slot(len(self.steps), width, kept, middle)

    def source(self, name: str) -> Slot:
        """Return the slot of a tensor, which may be a constant row."""
        slot = self.slots.get(name)
        if slot is not None:
            return slot
        values = self.constant(name)
        if values.ndim > 2 or values.size != (values.shape[-1] if values.ndim else 1):
            raise NotNativeError(f"the constant {name[:40]!r} has more than one row")
        kind, numbers = KINDS[self.constants[name].data_type], values.ravel().astype(np.float64)
        if kind == KINDS[INT64] and np.abs(numbers).max(initial=0) > INTEGER_MAX:
            raise NotNativeError(f"the constant {name[:40]!r} has integers above 2^53")
        self.slots[name] = self.row(numbers.tolist(), kind)
        return self.slots[name]

    def row(self, numbers: list[float], kind: int = KINDS[FLOAT]) -> Slot:
        """Add a constant row."""
        self.steps.append(("constant", [], [kind], numbers, None))
        return Slot(len(self.steps), len(numbers), kind)

    def constant(self, name: str) -> NDArray[Any]:
        """Return a constant. NotNativeError: *name* is none."""
        constant = self.constants.get(name)
        if constant is None:
            raise NotNativeError(f"the tensor {name[:40]!r} is no constant")
        return numbers_of(constant)

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

    def _reads_of(self, slot: Slot) -> int:
        """Return how many nodes read the tensors of a slot."""
        names = [name for name, at in self.slots.items() if at == slot]
        return sum(len(self._readers.get(name, ())) for name in names)
