"""Native trees: the native library scores boosted trees with the same bits as ONNX Runtime, faster.

ONNX Runtime walks a tree with one row at a time and predicts each branch; 100 trees of 31 leaves
cost 3.2 us a row. `ingress/src/accel/trees.rs` evaluates each node for 16 rows at once without
branches, which costs .5 us a row. It reads one kind of file: a TreeEnsembleRegressor of at most 64
leaves a tree, and a Sigmoid for a probability, as training.export.convert writes boosting. It is
used for a version only after both have given the same bits for comparison rows in this process.
Some of these lead to each leaf of each tree. In every other case ONNX Runtime scores. On-demand
features in front of the trees are run by ONNX Runtime, for all rows of a batch at once, and only
the trees natively.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scorer
from gateway.models.on_demand import COLUMNS, SplitModel, split_on_demand
from gateway.native_library import load_native_library
from registry.bundle import Bundle
from registry.scoring import Session, open_onnx
from registry.types import ScoringError, VersionRefusedError

log = logging.getLogger(__name__)

COMPARISON_ROWS = 1_024
"""Rows that are drawn for the comparison; they cost ONNX Runtime 5 ms."""
COMPARISON_BATCH_ROWS = (1, 3, 7, 17, 64)
"""Batch sizes of the comparison: each code path of either implementation is used."""
LEAF_ROWS_MAX = 16_384
"""Rows that lead to leaves to which no drawn row leads. A version that needs more of them, or more
than LEAF_VALUES_MAX values, is scored by ONNX Runtime: the comparison would take seconds."""
LEAF_VALUES_MAX = 2**25
SHORT_RUN_ROW_NS = 2_000
"""A run is short when a row costs less, which allows some 400 trees; the largest batch of 512 rows
then takes a millisecond."""
OTHER_BITS = "other_bits"
EDGE_VALUES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38)


class Ensemble(Protocol):
    """Boosted trees that are ready to score; turnout_ingress.Trees is one."""

    @property
    def width(self) -> int:
        """F, the number of inputs of a row."""
        ...

    def thresholds(self) -> list[tuple[int, bytes]]:
        """Return [(input, float32 thresholds as bytes)]; an input may occur more than once."""
        ...

    def leaf_rows(self, matrix: object, most: int) -> bytes | None:
        """Return float32 rows as bytes that lead to the leaves to which no row of *matrix* leads.

        None if there are more than *most*; ValueError for another shape than (R, F).
        """
        ...

    def run(self, matrix: object) -> bytes:
        """Return (R,) float32 scores as bytes for (R, F) float32; ValueError for another shape."""
        ...


def load_tree_reader() -> Callable[[bytes], Ensemble] | None:
    """Return the native reader of ONNX files, or None when there is no native library with one.

    The reader raises ValueError for a file that is not of the kind it reads.
    """
    return getattr(load_native_library(), "Trees", None)


class NativeTrees:
    """Scores with one version's trees: (B, F) float32 in, (B, 1) float32 out (Scorer)."""

    def __init__(self, ensemble: Ensemble, front: Session | None = None) -> None:
        """Take the trees, and what computes their inputs from the model's; None: nothing does."""
        self._ensemble = ensemble
        self._run = ensemble.run
        self._front = front
        self.short_runs = False
        """Whether runs are so short that the event loop may score a candidate's rows itself. Every
        row costs the same, and no content of a file can make a run hang."""

    @property
    def ensemble(self) -> Ensemble | None:
        """What scores a model's inputs as they are. None: features on demand come first."""
        return self._ensemble if self._front is None else None

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *matrix*; the result is read-only. ScoringError for another width or type."""
        if self._front is not None:
            matrix = self._front.run(matrix)
        try:
            return np.frombuffer(self._run(matrix), np.float32).reshape(-1, 1)
        except (ValueError, BufferError) as error:
            raise ScoringError(f"trees: {error}") from error


def choose_scorer(bundle: Bundle, session: Session) -> Scorer:
    """Return the fastest scorer with *session*'s bits: native trees, or *session* itself."""
    read = load_tree_reader()
    if read is None:
        return session
    split = split_on_demand(bundle.onnx)
    try:
        ensemble = read(bundle.onnx if split is None else split.model)
        front = None if split is None else _open_front(split, session, ensemble)
    except (ValueError, VersionRefusedError) as error:
        log.info("onnxruntime_scores version=%s reason=%s", bundle.digest[:16], error)
        return session
    # The file can be read; compare shapes, then the bits of scores.
    trees = NativeTrees(ensemble, front)
    if ((ensemble.width if front is None else front.width), 1) != (session.width, session.outputs):
        return session
    if front is None or split is None:
        rows = draw_comparison_rows(bundle.golden_inputs, ensemble.thresholds())
        reason = find_difference(ensemble, session, rows)
    else:
        rows = draw_comparison_rows(bundle.golden_inputs, ())
        reason = "" if same_bits(trees, session, rows) else OTHER_BITS
        reason = reason or _difference_of_columns(bundle, ensemble, front, split)
    if reason:
        log.warning("onnxruntime_scores version=%s reason=%s", bundle.digest[:16], reason)
        return session
    trees.short_runs = min(_row_ns(trees, rows) for _ in range(3)) < SHORT_RUN_ROW_NS
    return trees


def _open_front(split: SplitModel, session: Session, ensemble: Ensemble) -> Session:
    """Open the on-demand features in front of *ensemble*. Raises VersionRefusedError."""
    return Session(open_onnx(split.front), session.width, ensemble.width, COLUMNS)


def _difference_of_columns(
    bundle: Bundle, ensemble: Ensemble, front: Session, split: SplitModel
) -> str:
    """Return why trees behind on-demand features are not used, by their own columns.

    Thresholds are values of these columns, to which drawn model inputs seldom lead.
    """
    try:
        columns = front.run(bundle.golden_inputs)
    except ScoringError as error:
        return str(error)
    alone = Session(open_onnx(split.model), ensemble.width, 1)
    return find_difference(ensemble, alone, draw_comparison_rows(columns, ensemble.thresholds()))


def find_difference(ensemble: Ensemble, reference: Scorer, rows: NDArray[np.float32]) -> str:
    """Return why trees may not stand in for *reference*; "" if both have the same bits.

    rows  (R, F) rows of `draw_comparison_rows`. Rows to the leaves that they miss are compared too.
    """
    most = min(LEAF_ROWS_MAX, LEAF_VALUES_MAX // ensemble.width)
    found = ensemble.leaf_rows(rows, most)
    if found is None:
        return f"more than {most} rows are needed to reach every leaf"
    leaf_rows = np.frombuffer(found, np.float32).reshape(-1, ensemble.width)
    trees = NativeTrees(ensemble)
    same = same_bits(trees, reference, rows) and _scores_equal(trees, reference, leaf_rows)
    return "" if same else OTHER_BITS


def draw_comparison_rows(
    golden: NDArray[np.float32], thresholds: Sequence[tuple[int, bytes]]
) -> NDArray[np.float32]:
    """Return (COMPARISON_ROWS, F) rows that show a difference between two readings of the trees.

    golden      (G, F) golden rows.
    thresholds  as Ensemble.thresholds.

    Each value is a golden value of its input, a threshold, a float next to one, or an edge value.
    """
    rng = np.random.default_rng(32)
    rows = np.empty((COMPARISON_ROWS, golden.shape[1]), dtype=np.float32)
    edges: dict[int, list[NDArray[np.float32]]] = {}
    for column, values in thresholds:
        edges.setdefault(column, []).append(np.frombuffer(values, np.float32))
    for column in range(golden.shape[1]):
        # Thresholds and their neighbours first; golden values then replace half of them, and edge
        # values 5 %.
        exact = np.concatenate(edges.get(column, [np.zeros(1, np.float32)]))
        inf = np.float32(np.inf)
        near = np.concatenate([exact, np.nextafter(exact, inf), np.nextafter(exact, -inf)])
        rows[:, column] = rng.choice(near, COMPARISON_ROWS)
        usual = rng.random(COMPARISON_ROWS) < 0.5
        rows[usual, column] = rng.choice(golden[:, column], int(usual.sum()))
        odd = rng.random(COMPARISON_ROWS) < 0.05
        rows[odd, column] = rng.choice(np.array(EDGE_VALUES, dtype=np.float32), int(odd.sum()))
    return rows


def same_bits(scorer: Scorer, reference: Scorer, rows: NDArray[np.float32]) -> bool:
    """Whether two scorers give the same bits for *rows*, in one run and in small batches."""
    if not _scores_equal(scorer, reference, rows):
        return False
    return all(
        _scores_equal(scorer, reference, rows[first : first + count])
        for count in COMPARISON_BATCH_ROWS
        for first in range(0, 8 * count, count)
    )


def _row_ns(trees: NativeTrees, rows: NDArray[np.float32]) -> float:
    """Processor time of one row among many."""
    began_ns = time.thread_time_ns()
    trees.run(rows)
    return (time.thread_time_ns() - began_ns) / len(rows)


def _scores_equal(scorer: Scorer, reference: Scorer, rows: NDArray[np.float32]) -> bool:
    try:
        return scorer.run(rows).tobytes() == reference.run(rows).tobytes()
    except ScoringError:
        return False
