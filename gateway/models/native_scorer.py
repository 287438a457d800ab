"""Native trees: the native library scores trees with the same bits as ONNX Runtime, faster.

ONNX Runtime walks a tree with one row at a time and predicts each branch; 100 trees of 31 leaves
cost 3.2 us a row. `ingress/src/accel/trees` scores many rows at once without branches. Trees of up
to 32 leaves cost .3 us a row, trees of 64 leaves .7 us. It reads one tree operator: boosted trees
and forests, regressors and classifiers, with any number of leaves and outputs.

It is used for a version only after both have given the same bits for comparison rows in this
process. Some of these take each branch of each tree. In every other case ONNX Runtime scores. What
stands in front of the trees and behind them is run by ONNX Runtime, for all rows of a batch at
once, and only the trees natively (`gateway.models.tree_graph`).
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scorer
from gateway.models.tree_graph import GraphNotCutError, TreeGraph, cut_at_trees, file_of
from gateway.native_library import load_native_library
from registry.bundle import Bundle
from registry.scoring import Session, open_onnx
from registry.types import ScoringError, VersionRefusedError

log = logging.getLogger(__name__)

COMPARISON_ROWS = 1_024
"""Rows that are drawn for the comparison; they cost ONNX Runtime 5 ms."""
COMPARISON_BATCH_ROWS = (1, 3, 7, 17, 64)
"""Batch sizes of the comparison: each code path of either implementation is used."""
LEAF_ROWS_MAX = 65_536
"""Rows along branches that no drawn row takes. A version that needs more of them, or more than
LEAF_VALUES_MAX values, is scored by ONNX Runtime: the comparison would take too long. A forest of
180,000 leaves needs 36,600 rows, and 3 seconds."""
LEAF_VALUES_MAX = 2**25
SHORT_RUN_ROW_NS = 2_000
"""A run is short when a row costs less, which allows some 400 trees; the largest batch of 512 rows
then takes a millisecond."""
OTHER_BITS = "other_bits"
EDGE_VALUES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38)


class Ensemble(Protocol):
    """Trees that are ready to score; turnout_ingress.Trees is one."""

    @property
    def width(self) -> int:
        """F, the number of inputs of a row."""
        ...

    @property
    def outputs(self) -> int:
        """K, the number of scores of a row."""
        ...

    def thresholds(self) -> list[tuple[int, bytes]]:
        """Return [(input, float32 thresholds as bytes)]."""
        ...

    def leaf_rows(self, matrix: object, most: int) -> bytes | None:
        """Return float32 rows as bytes that take the branches which no row of *matrix* takes.

        None if there are more than *most*; ValueError for another shape than (R, F).
        """
        ...

    def run(self, matrix: object) -> bytes:
        """Return (R, K) float32 as bytes for (R, F) float32; ValueError for another shape."""
        ...


class TreeReader(Protocol):
    """The native reader of ONNX files; turnout_ingress.Trees is one."""

    def __call__(self, onnx: bytes, picked: Sequence[int] | None = None) -> Ensemble:
        """Read a tree operator. ValueError for a file that is not of the kind it reads.

        picked  scores that are kept, in this order; None: all.
        """
        ...


def load_tree_reader() -> TreeReader | None:
    """Return the native reader of ONNX files, or None when there is no native library with one."""
    return getattr(load_native_library(), "Trees", None)


def native_model_of(ensemble: Ensemble) -> object:
    """Return the turnout_ingress.NativeModel of trees alone."""
    library: Any = load_native_library()
    return library.NativeModel(ensemble)


class NativeScorer:
    """Scores with one version's trees: (B, F) float32 in, (B, K) float32 out (Scorer)."""

    def __init__(
        self, ensemble: Ensemble, front: Session | None = None, behind: Session | None = None
    ) -> None:
        """Take the trees, and what computes their inputs and the scores; None: nothing does."""
        self._ensemble = ensemble
        self._run = ensemble.run
        self._outputs = ensemble.outputs
        self._front = front
        self._behind = behind
        self.short_runs = False
        """Whether runs are so short that the event loop may score a candidate's rows itself. Every
        row costs the same, and no content of a file can make a run hang."""

    @property
    def native_model(self) -> object | None:
        """The turnout_ingress.NativeModel of the whole model. None: ONNX Runtime has a part."""
        whole = self._front is None and self._behind is None
        return native_model_of(self._ensemble) if whole else None

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *matrix*; the result is read-only. ScoringError for another width or type."""
        if self._front is not None:
            matrix = self._front.run(matrix)
        try:
            scores = np.frombuffer(self._run(matrix), np.float32).reshape(-1, self._outputs)
        except (ValueError, BufferError) as error:
            raise ScoringError(f"trees: {error}") from error
        return scores if self._behind is None else self._behind.run(scores)


class _PickedScores:
    """ONNX Runtime's session of a tree operator alone, with the scores that are used (Scorer)."""

    def __init__(self, session: Session, picked: tuple[int, ...] | None) -> None:
        self._session = session
        self._picked = picked

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = self._session.run(matrix)
        return scores if self._picked is None else scores[:, list(self._picked)]


def choose_scorer(bundle: Bundle, session: Session) -> Scorer:
    """Return the fastest scorer with *session*'s bits: native trees, or *session* itself."""
    read = load_tree_reader()
    if read is None:
        return session
    try:
        trees = prove_trees(bundle.onnx, bundle.golden_inputs, session, read)
    except (GraphNotCutError, ValueError, ScoringError, VersionRefusedError) as error:
        log.info("onnxruntime_scores version=%s reason=%s", bundle.digest[:16], error)
        return session
    if isinstance(trees, str):
        log.warning("onnxruntime_scores version=%s reason=%s", bundle.digest[:16], trees)
        return session
    rows = draw_comparison_rows(bundle.golden_inputs, ())
    trees.short_runs = min(_row_ns(trees, rows) for _ in range(3)) < SHORT_RUN_ROW_NS
    return trees


def prove_trees(
    onnx: bytes, golden: NDArray[np.float32], session: Session, read: TreeReader
) -> NativeScorer | str:
    """Return trees with *session*'s bits, or why they are not used although they could be read.

    onnx    the file of *session*.
    golden  (G, F) golden rows.

    Raises GraphNotCutError, ValueError, ScoringError or VersionRefusedError for a part that is not
    read.
    """
    graph = cut_at_trees(onnx)
    # Open what stands in front of the trees, which says how many columns they have.
    front, columns = None, golden
    if graph.front is not None:
        opened = open_onnx(file_of(onnx, graph.front))
        width = opened.run([graph.columns], {"inputs": columns[:1]})[0].shape[-1]
        front = Session(opened, session.width, width, graph.columns)
        columns = front.run(columns)
    file = file_of(onnx, graph.trees, columns.shape[1])
    ensemble = read(file, graph.picked)
    # Open what stands behind them.
    behind = None
    if graph.behind is not None:
        opened = open_onnx(file_of(onnx, graph.behind, ensemble.outputs))
        behind = Session(opened, ensemble.outputs, session.outputs)
    if behind is None and ensemble.outputs != session.outputs:
        return f"{ensemble.outputs} scores where the model has {session.outputs}"
    # Compare the trees on their own columns, to whose thresholds drawn model inputs seldom lead.
    # Then compare all parts together with the whole.
    trees = NativeScorer(ensemble, front, behind)
    alone = Session(open_onnx(file), ensemble.width, _outputs_of(graph, ensemble, read, file))
    rows = draw_comparison_rows(columns, ensemble.thresholds())
    reason = find_difference(ensemble, _PickedScores(alone, graph.picked), rows)
    whole = rows if front is None else draw_comparison_rows(golden, ())
    return reason or ("" if same_bits(trees, session, whole) else OTHER_BITS) or trees


def _outputs_of(graph: TreeGraph, ensemble: Ensemble, read: TreeReader, file: bytes) -> int:
    """Return how many scores the tree operator gives before some are picked."""
    return ensemble.outputs if graph.picked is None else read(file).outputs


def find_difference(ensemble: Ensemble, reference: Scorer, rows: NDArray[np.float32]) -> str:
    """Return why trees may not stand in for *reference*; "" if both have the same bits.

    rows  (R, F) rows of `draw_comparison_rows`. Rows along the branches that they miss are compared
          too.
    """
    most = min(LEAF_ROWS_MAX, LEAF_VALUES_MAX // ensemble.width)
    found = ensemble.leaf_rows(rows, most)
    if found is None:
        return f"more than {most} rows are needed to take every branch"
    leaf_rows = np.frombuffer(found, np.float32).reshape(-1, ensemble.width)
    trees = NativeScorer(ensemble)
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
        with np.errstate(over="ignore", under="ignore"):
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


def _row_ns(trees: NativeScorer, rows: NDArray[np.float32]) -> float:
    """Processor time of one row among many."""
    began_ns = time.thread_time_ns()
    trees.run(rows)
    return (time.thread_time_ns() - began_ns) / len(rows)


def _scores_equal(scorer: Scorer, reference: Scorer, rows: NDArray[np.float32]) -> bool:
    try:
        return scorer.run(rows).tobytes() == reference.run(rows).tobytes()
    except ScoringError:
        return False
