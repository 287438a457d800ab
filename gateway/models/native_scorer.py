"""Native models: the native library scores what ONNX Runtime scores, faster.

ONNX Runtime takes 5 to 10 us for a run of few rows, walks a tree with one row at a time and
predicts each branch. `ingress/src/accel` scores many rows at once, without branches and without
Python. It knows trees with any number of leaves and outputs, linear models, small networks, and
what usually stands beside them (`gateway.models.native_steps`). If an operator that it does not
know stands beside one operator of trees, ONNX Runtime runs that for all rows of a batch at once,
and only the trees are scored natively (`gateway.models.steps.tree_graph`).

A native model is used for a version only after both have scored comparison rows alike in this
process. Some of these take each branch of each tree. Trees, and steps that round as ONNX Runtime
does, have to give the same bits. Sums of products and functions such as exp may differ by
TOLERANCE, because ONNX Runtime itself rounds them differently by the number of rows and by the
processor. In every other case ONNX Runtime scores.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scorer
from gateway.models.native_steps import TreePart, read_steps
from gateway.models.steps.step_builder import Step
from gateway.models.steps.tree_graph import NotNativeError, cut_at_trees, file_of, read_onnx_graph
from gateway.native_library import load_native_library
from registry.bundle import Bundle
from registry.golden import ScoreTolerance, score_size
from registry.scoring import Session, allowed_differences, open_onnx, score_differences
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
TOLERANCE = 1e-6
"""How far scores may differ: by this share of the score, and of the size that golden scores have.
float32 has 1e-7; a version may be a hundred times as far from its certified scores."""
SHORT_RUN_ROW_NS = 2_000
"""A run is short when a row costs less, which allows some 400 trees; the largest batch of 512 rows
then takes a millisecond."""
OTHER_BITS, OTHER_SCORES = "other_bits", "other_scores"
EDGE_VALUES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38)


class ScoringModel(Protocol):
    """What the native library scores with; turnout_ingress.NativeModel and Trees are such."""

    @property
    def width(self) -> int:
        """F, the number of inputs of a row."""
        ...

    @property
    def outputs(self) -> int:
        """K, the number of scores of a row."""
        ...

    def run(self, matrix: object) -> bytes:
        """Return (R, K) float32 as bytes for (R, F) float32; ValueError for another shape."""
        ...


class Steps(ScoringModel, Protocol):
    """Steps that are ready to score; turnout_ingress.NativeModel is one."""

    @property
    def exact(self) -> bool:
        """Whether all steps round as ONNX Runtime does."""
        ...


class Ensemble(ScoringModel, Protocol):
    """Trees that are ready to score; turnout_ingress.Trees is one."""

    @property
    def double(self) -> bool:
        """Whether its inputs are float64, and otherwise float32."""
        ...

    def thresholds(self) -> list[tuple[int, bytes]]:
        """Return [(input, float64 thresholds as bytes)]."""
        ...

    def leaf_rows(self, matrix: object, most: int) -> bytes | None:
        """Return float64 rows as bytes that take the branches which no row of *matrix* takes.

        None if there are more than *most*; ValueError for another matrix than (R, F) float64.
        """
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


class NativeScorer:
    """Scores with one version's native model: (B, F) float32 in, (B, K) float32 out (Scorer)."""

    def __init__(
        self, model: ScoringModel, front: Session | None = None, behind: Session | None = None
    ) -> None:
        """Take the model, and what computes its inputs and the scores; None: nothing does."""
        self._model = model
        self._run = model.run
        self._outputs = model.outputs
        self._front = front
        self._behind = behind
        self.short_runs = False
        """Whether runs are so short that the event loop may score a candidate's rows itself. Every
        row costs the same, and no content of a file can make a run hang."""

    @property
    def native_model(self) -> ScoringModel | None:
        """The turnout_ingress.NativeModel of the whole model. None: ONNX Runtime has a part."""
        return self._model if self._front is None and self._behind is None else None

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *matrix*; the result is read-only. ScoringError for another width or type."""
        if self._front is not None:
            matrix = self._front.run(matrix)
        try:
            scores = np.frombuffer(self._run(matrix), np.float32).reshape(-1, self._outputs)
        except (ValueError, BufferError) as error:
            raise ScoringError(f"native model: {error}") from error
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
    """Return the fastest scorer that scores as *session*: a native one, or *session* itself."""
    read = load_tree_reader()
    if read is None:
        return session
    size = score_size(bundle.golden_outputs)
    try:
        native = prove_native(bundle.onnx, bundle.golden_inputs, session, read, size)
    except (NotNativeError, ValueError, ScoringError, VersionRefusedError) as error:
        log.info("onnxruntime_scores version=%s reason=%s", bundle.digest[:16], error)
        return session
    if isinstance(native, str):
        log.warning("onnxruntime_scores version=%s reason=%s", bundle.digest[:16], native)
        return session
    rows = draw_comparison_rows(bundle.golden_inputs, ())
    native.short_runs = min(_row_ns(native, rows) for _ in range(3)) < SHORT_RUN_ROW_NS
    return native


def prove_native(
    onnx: bytes,
    golden: NDArray[np.float32],
    session: Session,
    read: TreeReader,
    size: float = 1.0,
) -> NativeScorer | str:
    """Return a scorer that scores as *session*, or why it is not used although it could be read.

    onnx    the file of *session*.
    golden  (G, F) golden rows.
    size    the size that golden scores usually have.

    Raises NotNativeError, ValueError, ScoringError or VersionRefusedError for a part that is not
    read.
    """
    # Read all steps. If one is not known, ONNX Runtime may run what stands beside the trees.
    graph = read_onnx_graph(onnx)
    try:
        whole = read_steps(onnx, graph, session.width, read)
        model = _native_model(session.width, whole.steps)
    except (NotNativeError, ValueError):
        if len(graph.trees) != 1:
            raise
        return prove_trees(onnx, golden, session, read)
    if model.outputs != session.outputs:
        return f"{model.outputs} scores where the model has {session.outputs}"
    # Compare the trees on their own columns, to whose thresholds drawn model inputs seldom lead.
    thresholds: list[tuple[int, bytes]] = []
    for trees in whole.trees:
        columns = golden
        if trees.front:
            columns = NativeScorer(_native_model(session.width, trees.front)).run(golden)
        else:
            thresholds += trees.ensemble.thresholds()
        if reason := _find_difference_of(trees, columns, read):
            return reason
    # Compare all steps together with the whole.
    scorer = NativeScorer(model)
    if model.exact:
        rows = draw_comparison_rows(golden, thresholds)
        return scorer if same_scores(scorer, session, rows) else OTHER_BITS
    rows = np.concatenate([draw_comparison_rows(golden, (), one_edge=True), _plain_rows(golden)])
    tolerance = ScoreTolerance(absolute=TOLERANCE * size, relative=TOLERANCE)
    return scorer if same_scores(scorer, session, rows, tolerance) else OTHER_SCORES


def _native_model(width: int, steps: Sequence[Step]) -> Steps:
    """Return a turnout_ingress.NativeModel. ValueError: a step does not fit, or it is too large."""
    library: Any = load_native_library()
    model: Steps = library.NativeModel(width, steps)
    return model


def _plain_rows(golden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return golden rows as they are, and rows that have the same value in each column."""
    values = np.array([*EDGE_VALUES, 1.0, -1.0], dtype=np.float32)
    same = np.repeat(values[:, np.newaxis], golden.shape[1], axis=1)
    return np.concatenate([golden[:COMPARISON_ROWS], same])


def prove_trees(
    onnx: bytes, golden: NDArray[np.float32], session: Session, read: TreeReader
) -> NativeScorer | str:
    """Return trees with *session*'s bits beside parts that ONNX Runtime runs, as `prove_native`."""
    graph = cut_at_trees(onnx)
    # Open what stands in front of the trees, which says how many columns they have.
    front, columns = None, golden
    if graph.front is not None:
        opened = open_onnx(file_of(onnx, graph.front))
        width = opened.run([graph.columns], {"inputs": columns[:1]})[0].shape[-1]
        front = Session(opened, session.width, width, graph.columns)
        columns = front.run(columns)
    file = file_of(onnx, graph.trees, columns.shape[1], graph.kind)
    ensemble = read(file, graph.picked)
    # Open what stands behind them.
    behind = None
    if graph.behind is not None:
        opened = open_onnx(file_of(onnx, graph.behind, ensemble.outputs))
        behind = Session(opened, ensemble.outputs, session.outputs)
    if behind is None and ensemble.outputs != session.outputs:
        return f"{ensemble.outputs} scores where the model has {session.outputs}"
    # Compare the trees on their own columns, and then all parts together with the whole.
    trees = NativeScorer(ensemble, front, behind)
    part = TreePart(ensemble, file, graph.picked, [])
    reason = _find_difference_of(part, columns, read)
    whole = draw_comparison_rows(golden, ())
    return reason or ("" if same_scores(trees, session, whole) else OTHER_BITS) or trees


def _find_difference_of(trees: TreePart, columns: NDArray[np.float32], read: TreeReader) -> str:
    """Return why trees may not stand in for their operator; "" if both have the same bits.

    columns  (G, C) what the trees read for golden rows.
    """
    ensemble, picked = trees.ensemble, trees.picked
    outputs = ensemble.outputs if picked is None else read(trees.file).outputs
    alone = Session(open_onnx(trees.file), ensemble.width, outputs)
    numbers = columns.astype(np.float64 if ensemble.double else np.float32)
    rows = draw_comparison_rows(numbers, ensemble.thresholds())
    return find_difference(ensemble, _PickedScores(alone, picked), rows)


def find_difference(ensemble: Ensemble, reference: Scorer, rows: NDArray[np.float32]) -> str:
    """Return why trees may not stand in for *reference*; "" if both have the same bits.

    rows  (R, F) rows of `draw_comparison_rows`. Rows along the branches that they miss are compared
          too.
    """
    most = min(LEAF_ROWS_MAX, LEAF_VALUES_MAX // ensemble.width)
    found = ensemble.leaf_rows(rows.astype(np.float64), most)
    if found is None:
        return f"more than {most} rows are needed to take every branch"
    leaf_rows = np.frombuffer(found, np.float64).reshape(-1, ensemble.width).astype(rows.dtype)
    trees = NativeScorer(ensemble)
    same = same_scores(trees, reference, rows) and _scores_equal(trees, reference, leaf_rows)
    return "" if same else OTHER_BITS


def draw_comparison_rows(
    golden: NDArray[Any], thresholds: Sequence[tuple[int, bytes]], *, one_edge: bool = False
) -> NDArray[Any]:
    """Return (COMPARISON_ROWS, F) rows that show a difference between two readings of a model.

    golden      (G, F) golden rows, float32 or float64, as the result is.
    thresholds  as Ensemble.thresholds.
    one_edge    a row has one edge value at most. What is left of a sum in which two of the largest
                numbers cancel depends on the order of the sum.

    Each value is a golden value of its input, a threshold, a float next to one, or an edge value.
    """
    rng = np.random.default_rng(32)
    rows = np.empty((COMPARISON_ROWS, golden.shape[1]), dtype=golden.dtype)
    free = np.ones(COMPARISON_ROWS, dtype=bool)
    edges: dict[int, list[NDArray[Any]]] = {}
    for column, values in thresholds:
        numbers = np.frombuffer(values, np.float64).astype(golden.dtype)
        if numbers.size:
            edges.setdefault(column, []).append(numbers)
    for column in range(golden.shape[1]):
        # Thresholds and their neighbours first; golden values then replace half of them, and edge
        # values 5 %.
        exact = np.concatenate(edges.get(column, [np.zeros(1, golden.dtype)]))
        inf = golden.dtype.type(np.inf)
        with np.errstate(over="ignore", under="ignore"):
            near = np.concatenate([exact, np.nextafter(exact, inf), np.nextafter(exact, -inf)])
        rows[:, column] = rng.choice(near, COMPARISON_ROWS)
        usual = rng.random(COMPARISON_ROWS) < 0.5
        rows[usual, column] = rng.choice(golden[:, column], int(usual.sum()))
        odd = (rng.random(COMPARISON_ROWS) < 0.05) & free
        free[odd] = not one_edge
        rows[odd, column] = rng.choice(np.array(EDGE_VALUES, golden.dtype), int(odd.sum()))
    return rows


def same_scores(
    scorer: Scorer,
    reference: Scorer,
    rows: NDArray[np.float32],
    tolerance: ScoreTolerance | None = None,
) -> bool:
    """Whether two scorers score *rows* alike, in one run and in small batches.

    tolerance  how far scores may differ; NaN and infinities have to be the same. None: not a bit.
    """
    if not _scores_equal(scorer, reference, rows, tolerance):
        return False
    return all(
        _scores_equal(scorer, reference, rows[first : first + count], tolerance)
        for count in COMPARISON_BATCH_ROWS
        for first in range(0, 8 * count, count)
    )


def _row_ns(scorer: NativeScorer, rows: NDArray[np.float32]) -> float:
    """Processor time of one row among many."""
    began_ns = time.thread_time_ns()
    scorer.run(rows)
    return (time.thread_time_ns() - began_ns) / len(rows)


def _scores_equal(
    scorer: Scorer,
    reference: Scorer,
    rows: NDArray[np.float32],
    tolerance: ScoreTolerance | None = None,
) -> bool:
    try:
        found, expected = scorer.run(rows), reference.run(rows)
    except ScoringError:
        return False
    if found.shape != expected.shape:
        return False
    if tolerance is None:
        # NaN has many bits, which mean the same.
        same = found.view(np.int32) == expected.view(np.int32)
        return bool((same | (np.isnan(found) & np.isnan(expected))).all())
    allowed = allowed_differences(tolerance, expected)
    return bool((score_differences(found, expected) <= allowed).all())
