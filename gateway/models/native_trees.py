"""Boosted trees, scored by the native door's library: the same bits as ONNX Runtime, sooner.

ONNX Runtime asks a tree about one row at a time and guesses each branch; 100 trees of 31 leaves
cost it 3.2 us a row. `ingress/src/accel/trees.rs` asks each node about 16 rows at once, without
branches: .5 us. It knows one kind of file (a TreeEnsembleRegressor of at most 32 leaves a tree and
a Sigmoid, as training.export.convert writes boosting) and is used only for a version on which both
have just given the same bits, in this process; everything else, and every doubt, is ONNX Runtime's.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scorer
from gateway.native_library import load_native_library
from registry.bundle import Bundle, Session
from registry.types import ScoringError

log = logging.getLogger(__name__)

COMPARISON_ROWS = 1_024
"""Drawn for the comparison: 5 ms of ONNX Runtime's time."""
COMPARISON_BATCH_ROWS = (1, 3, 7, 17, 64)
"""Rows a run: each way through either kernel."""
SHORT_RUN_ROW_NS = 2_000
"""400 trees or so: the largest batch takes a millisecond."""
EDGE_VALUES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38)


class Ensemble(Protocol):
    """turnout_ingress.Trees: boosted trees, ready to score."""

    @property
    def width(self) -> int:
        """Inputs of a row."""
        ...

    def thresholds(self) -> list[tuple[int, bytes]]:
        """(input, its float32 thresholds as bytes), those of one kind of node at a time."""
        ...

    def run(self, matrix: object) -> bytes:
        """Score (R, F) float32: R float32. ValueError for another shape."""
        ...


def load_tree_reader() -> Callable[[bytes], Ensemble] | None:
    """Return what reads an ONNX file, or raises ValueError for one of another kind; None: nobody.

    A library that was built before there were trees in it counts as none.
    """
    return getattr(load_native_library(), "Trees", None)


class NativeTrees:
    """One version's trees: (B, F) float32 in, (B, 1) float32 out, as registry.bundle.Session."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._run = ensemble.run
        self.short_runs = False
        """Whether rows took so little here that the loop may score a candidate's, too: every row
        costs the same, and nothing in a file can make a run hang."""

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score *matrix*; the result cannot be written to.

        Raises ScoringError for a matrix of another width or type.
        """
        try:
            return np.frombuffer(self._run(matrix), np.float32).reshape(-1, 1)
        except (ValueError, BufferError) as error:
            raise ScoringError(f"trees: {error}") from error


def choose_scorer(bundle: Bundle, session: Session) -> Scorer:
    """Return what scores this version soonest with the same bits: native trees, or *session*."""
    read = load_tree_reader()
    if read is None:
        return session
    try:
        ensemble = read(bundle.onnx)
    except ValueError as error:
        log.info("onnxruntime_scores version=%s reason=%s", bundle.digest[:16], error)
        return session
    trees = NativeTrees(ensemble)
    if (ensemble.width, 1) != (session.width, session.outputs):
        return session
    rows = draw_comparison_rows(bundle.golden_inputs, ensemble.thresholds())
    if not same_bits(trees, session, rows):
        log.warning("onnxruntime_scores version=%s reason=other_bits", bundle.digest[:16])
        return session
    trees.short_runs = min(_row_ns(trees, rows) for _ in range(3)) < SHORT_RUN_ROW_NS
    return trees


def draw_comparison_rows(
    golden: NDArray[np.float32], thresholds: Sequence[tuple[int, bytes]]
) -> NDArray[np.float32]:
    """Return (ROWS, F) rows on which two readings of the same trees would part, if they can.

    golden      (G, F).
    thresholds  (input, its float32 thresholds as bytes).

    Each value is one of the input's golden values, thresholds, their neighbours, or odd.
    """
    rng = np.random.default_rng(32)
    rows = np.empty((COMPARISON_ROWS, golden.shape[1]), dtype=np.float32)
    edges: dict[int, list[NDArray[np.float32]]] = {}
    for place, told in thresholds:
        edges.setdefault(place, []).append(np.frombuffer(told, np.float32))
    for place in range(golden.shape[1]):
        exact = np.concatenate(edges.get(place, [np.zeros(1, np.float32)]))
        inf = np.float32(np.inf)
        near = np.concatenate([exact, np.nextafter(exact, inf), np.nextafter(exact, -inf)])
        rows[:, place] = rng.choice(near, COMPARISON_ROWS)
        usual = rng.random(COMPARISON_ROWS) < 0.5
        rows[usual, place] = rng.choice(golden[:, place], int(usual.sum()))
        odd = rng.random(COMPARISON_ROWS) < 0.05
        rows[odd, place] = rng.choice(np.array(EDGE_VALUES, dtype=np.float32), int(odd.sum()))
    return rows


def same_bits(scorer: Scorer, reference: Scorer, rows: NDArray[np.float32]) -> bool:
    """Whether two scorers give the same bits for *rows*, whole and in small batches."""
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
