"""Certifies that an adapted graph scores as the foreign graph, and that as the foreign library."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from features.contract import ModelContract
from registry.golden import ScoreTolerance, score_size
from registry.scoring import allowed_differences, score_differences
from registry.version_proof import OWN_ROW_ONLY
from training.adoption.adapt_graph import INPUTS, SCORES
from training.adoption.edge_feed import adapted_rows
from training.adoption.foreign import Adaptation, ForeignModel, Transform
from training.adoption.foreign_feed import FeedMaker
from training.adoption.foreign_session import ForeignSession
from training.adoption.graph.tree_leaves import spread_indexes
from training.errors import AdoptionError
from training.export.onnx_model import IR_VERSION, OPSET

ROWS = 10_000
"""Rows on which both graphs are compared, at least."""
TOLERANCE = 1e-5
"""A float32 has 1e-7, and a sum of some hundred of them ten to a hundred times that."""
USUAL_TIMES = 4
"""Values up to so many times the sample's largest are usual."""
SINGLE_ROWS_S = 4.0
"""After so much processor time no further row is scored alone."""
SINGLE_ROWS_MIN = 64
BATCH_ROWS = (2, 3, 64, 257)
BATCHES_MAX = 400
"""Batches of each size. 64 and 257 rows then cover all rows."""
BATCHES_S = 1.5
"""Processor time for the batches of each size."""

Scorer = Callable[[NDArray[np.intp]], NDArray[np.float32]]
"""(B,) indexes of prepared rows -> (B, K) scores. ONNX Runtime's errors are not caught."""
REPORT = "This is a mistake of the adaptation; report it with the model file"


@dataclass(frozen=True, slots=True)
class GraphCertificate:
    """Two graphs gave equal bits for the same rows in the same batches.

    rows              rows that were compared in one batch.
    single_rows       rows that were compared one by one as well.
    batch_rows        sizes of the batches, each in another order, that were compared as well.
    refused_rows      rows that both graphs refuse; they are not among *rows*.
    optimised         whether the bits are equal as ONNX Runtime optimises the graphs. If not, they
                      are equal when each operator is run as the file has it.
    company_max       the largest difference of a row's scores alone and in company.
    tolerance         how far these may differ, to be stated in the version (`usual_tolerance`).
    """

    rows: int
    single_rows: int
    batch_rows: tuple[int, ...]
    refused_rows: int
    optimised: bool
    company_max: float
    tolerance: ScoreTolerance

    def definition(self) -> dict[str, Any]:
        """Return the certificate as JSON values, for the card."""
        return {
            "rows": self.rows,
            "single_rows": self.single_rows,
            "batch_rows": list(self.batch_rows),
            "refused_rows": self.refused_rows,
            "optimised": self.optimised,
            "company_max": self.company_max,
            "tolerance": {
                "absolute": self.tolerance.absolute,
                "relative": self.tolerance.relative,
            },
        }


def certify_graph(
    model: ForeignModel,
    adaptation: Adaptation,
    contract: ModelContract,
    adapted: bytes,
    sample: NDArray[np.float32],
    *,
    count: int = ROWS,
) -> GraphCertificate:
    """Compare the foreign graph and the adapted graph, bit by bit.

    sample  (S, F) rows in the contract's order, S at least 1: real rows, if there are any. Of more
            than *count*, evenly spaced ones are compared. Edge rows are added, and mixed rows until
            there are *count*.

    Both graphs are run, so this belongs in a child process with limits. Raises AdoptionError, which
    names the row, for other bits or a score that depends on the rows beside it.
    """
    sample = sample[spread_indexes(len(sample), count)]
    rows = adapted_rows(model.onnx, adaptation, contract, sample, count=count)
    reference = _Reference(model, adaptation, contract)
    tolerance = usual_tolerance(_scores_of(reference.scorer(sample), sample))
    graphs = _Graphs(reference, ForeignSession(adapted), tolerance)
    rows, refused_rows = _scorable(graphs, rows)
    if len(rows) == 0:
        raise AdoptionError(
            f"the graph refuses all {refused_rows} rows; give sample rows that it scores"
        )
    # Different bits may come of another fusion of operators. Each operator is run on its own then,
    # and the optimised graphs may differ by rounding.
    optimised = _Comparison(graphs, rows, sample)
    comparisons = [optimised]
    if optimised.difference(np.arange(len(rows))) is not None:
        optimised.equal_bits = False
        plain = _Graphs(
            _Reference(model, adaptation, contract, optimised=False),
            ForeignSession(adapted, optimised=False),
            tolerance,
        )
        comparisons.append(_Comparison(plain, rows, sample))
    # All rows together, then one by one, then in batches of other sizes and in another order each.
    rng = np.random.default_rng(len(rows))
    for comparison in comparisons:
        comparison.compare(np.arange(len(rows)), "together")
        comparison.compare_single(rng.permutation(len(rows)))
        for size in BATCH_ROWS:
            comparison.compare_batches(rng.permutation(len(rows)), size)
        comparison.compare_single_again()
    return GraphCertificate(
        rows=len(rows),
        single_rows=min(comparison.single_rows for comparison in comparisons),
        batch_rows=BATCH_ROWS,
        refused_rows=refused_rows,
        optimised=optimised.equal_bits,
        company_max=max(comparison.company_max for comparison in comparisons),
        tolerance=tolerance,
    )


def usual_tolerance(scores: NDArray[np.float32], part: float = TOLERANCE) -> ScoreTolerance:
    """Return the tolerance to state for a model that scores so, (N, K).

    It is a *part* of the score, and the same part of the size that scores usually have.
    """
    return ScoreTolerance(absolute=part * score_size(scores), relative=part)


def reference_scorer(
    model: ForeignModel, adaptation: Adaptation, contract: ModelContract
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return what makes (N, K) scores of (N, F) rows of the contract by the foreign graph.

    The adapted graph has no part in it. ONNX Runtime's errors are not caught.
    """
    reference = _Reference(model, adaptation, contract)
    return lambda rows: reference.scorer(rows)(np.arange(len(rows)))


class _Reference:
    """The foreign graph, and what numpy makes of rows of the contract for it."""

    def __init__(
        self,
        model: ForeignModel,
        adaptation: Adaptation,
        contract: ModelContract,
        *,
        optimised: bool = True,
    ) -> None:
        self._session = ForeignSession(model.onnx, optimised=optimised)
        self._maker = FeedMaker(model, adaptation, contract)
        self._transform = _transform_session(adaptation.transform)
        self._output = adaptation.output
        self._selected = list(adaptation.selected)

    def scorer(self, rows: NDArray[np.float32]) -> Scorer:
        """Return what scores some of *rows*, (N, F); their feed is made once."""
        feed = self._maker.feed(rows)

        def scores(picked: NDArray[np.intp]) -> NDArray[np.float32]:
            part = {name: values[picked] for name, values in feed.items()}
            columns = self._session.run(part, self._output).astype(np.float32)
            if self._transform is not None:
                columns = self._transform.run({INPUTS: columns}, SCORES)
            return np.ascontiguousarray(columns[:, self._selected])

        return scores


@dataclass(frozen=True, slots=True)
class _Graphs:
    """The two graphs, and how far their scores may move."""

    reference: _Reference
    adapted: ForeignSession
    tolerance: ScoreTolerance

    def scorers(self, rows: NDArray[np.float32]) -> tuple[Scorer, Scorer]:
        """Return what scores some of *rows* by the foreign and by the adapted graph."""
        return self.reference.scorer(rows), lambda picked: self.adapted.run(
            {INPUTS: rows[picked]}, SCORES
        )


def _transform_session(transform: Transform) -> ForeignSession | None:
    """Return a graph of the transform alone, because numpy's exponential has other last bits."""
    if transform == "none":
        return None
    node = (
        helper.make_node("Sigmoid", [INPUTS], [SCORES])
        if transform == "sigmoid"
        else helper.make_node("Softmax", [INPUTS], [SCORES], axis=1)
    )
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])
        for name in (INPUTS, SCORES)
    ]
    graph = helper.make_graph([node], transform, shapes[:1], shapes[1:])
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return ForeignSession(bytes(made.SerializeToString()))


def _scorable(graphs: _Graphs, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Return the rows that both graphs score, and how many both refuse.

    Raises AdoptionError when only one of them refuses a row.
    """
    scorers = graphs.scorers(rows)
    refused = np.zeros(len(rows), dtype=bool)
    pending = [np.arange(len(rows))]
    while pending:
        part = pending.pop()
        errors = [_error_of(scorer, part) for scorer in scorers]
        if not any(errors):
            continue
        if len(part) > 1:
            pending += np.array_split(part, 2)
            continue
        if not all(errors):
            raise AdoptionError(
                f"the row {_shown(rows[part[0]])} is refused by one graph only: the foreign graph "
                f"says {errors[0] or 'a score'!r}, the adapted one {errors[1] or 'a score'!r}. "
                f"{REPORT}"
            )
        refused[part] = True
    return rows[~refused], int(refused.sum())


class _Comparison:
    """Compares two graphs on the same batches, and a row's scores with those that it has alone."""

    def __init__(
        self, graphs: _Graphs, rows: NDArray[np.float32], sample: NDArray[np.float32]
    ) -> None:
        """Take (N, F) rows that both graphs score, and the sample of which they were made.

        Bits are compared for all rows. Scores in company are compared for rows whose values are
        missing or of the sample's size: sums of 3.4e38 and -3.4e38 depend on their order.
        """
        self._rows = rows
        self._tolerance = graphs.tolerance
        self._reference, self._adapted = graphs.scorers(rows)
        finite = np.where(np.isfinite(sample), np.abs(sample), 0)
        usual_max = USUAL_TIMES * np.maximum(finite.max(axis=0), 1)
        self._usual = np.asarray((np.isnan(rows) | (np.abs(rows) <= usual_max)).all(axis=1))
        self._single: dict[int, NDArray[np.float32]] = {}
        """Row -> its (K,) scores alone."""
        self.equal_bits = True
        """Whether bits must be equal; if not, scores of usual rows must be within the tolerance."""
        self.company_max = 0.0

    @property
    def single_rows(self) -> int:
        """Rows that were compared alone."""
        return len(self._single)

    def difference(self, picked: NDArray[np.intp]) -> tuple[int, Any, Any] | None:
        """Return a row with other bits in a batch, and its two scores; None if there is none."""
        return self._worst(picked, self._reference(picked), self._adapted(picked))

    def compare(self, picked: NDArray[np.intp], company: str) -> NDArray[np.float32]:
        """Return the adapted graph's scores of a batch. AdoptionError if the graphs differ."""
        expected, found = self._reference(picked), self._adapted(picked)
        worst = self._worst(picked, expected, found)
        if worst is not None:
            row, was, now = worst
            raise AdoptionError(
                f"the row {_shown(self._rows[row])} scores {was} by the foreign graph and {now} by "
                f"the adapted one, {company}; equal bits are promised. {REPORT}"
            )
        return found

    def compare_single(self, order: NDArray[np.intp]) -> None:
        """Compare rows one by one, as many as SINGLE_ROWS_S allows."""
        until = time.thread_time() + SINGLE_ROWS_S
        for row in order.tolist():
            if len(self._single) >= SINGLE_ROWS_MIN and time.thread_time() > until:
                break
            self._single[row] = self.compare(np.array([row]), "alone")[0]

    def compare_batches(self, order: NDArray[np.intp], size: int) -> None:
        """Compare batches of *size* rows that follow each other in *order*."""
        until = time.thread_time() + BATCHES_S
        for first in range(0, min(len(order), BATCHES_MAX * size), size):
            if first and time.thread_time() > until:
                break
            picked = order[first : first + size]
            company = f"in a batch of {len(picked)}"
            self._refuse_company(picked, self.compare(picked, company), company)

    def compare_single_again(self) -> None:
        """Score some rows alone again: no batch may have changed a later one."""
        for row in list(self._single)[:SINGLE_ROWS_MIN]:
            picked = np.array([row])
            self._refuse_company(picked, self._adapted(picked), "alone again, after other batches")

    def _worst(
        self, picked: NDArray[np.intp], expected: NDArray[np.float32], found: NDArray[np.float32]
    ) -> tuple[int, Any, Any] | None:
        if expected.shape != found.shape:
            return int(picked[0]), f"shape {expected.shape}", f"shape {found.shape}"
        if self.equal_bits:
            same = expected.view(np.uint32) == found.view(np.uint32)
            same |= np.isnan(expected) & np.isnan(found)
            different = ~same.all(axis=1)
        else:
            excess = score_differences(found, expected) - allowed_differences(
                self._tolerance, expected
            )
            different = (excess.max(axis=1) > 0) & self._usual[picked]
        if not different.any():
            return None
        index = int(np.argmax(different))
        return int(picked[index]), expected[index].tolist(), found[index].tolist()

    def _refuse_company(
        self, picked: NDArray[np.intp], found: NDArray[np.float32], company: str
    ) -> None:
        """Raise AdoptionError when scores in company are not those that the rows have alone."""
        known = [
            index
            for index, row in enumerate(picked.tolist())
            if self._usual[row] and row in self._single
        ]
        if not known:
            return
        single = np.stack([self._single[int(picked[index])] for index in known])
        differences = score_differences(found[known], single)
        excess = (differences - allowed_differences(self._tolerance, single)).max(axis=1)
        worst = int(np.argmax(excess))
        if excess[worst] > 0:
            raise AdoptionError(
                f"the row {_shown(self._rows[picked[known[worst]]])} scores "
                f"{single[worst].tolist()} alone and {found[known[worst]].tolist()} {company}; "
                f"{OWN_ROW_ONLY}"
            )
        self.company_max = max(self.company_max, float(differences.max()))


def _scores_of(scorer: Scorer, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score sample rows. AdoptionError if the graph refuses them."""
    try:
        return scorer(np.arange(len(rows)))
    except AdoptionError:
        raise
    except Exception as error:
        raise AdoptionError(
            f"the graph does not score the sample rows: {str(error)[:300]}. Give rows as the model "
            "was fitted on"
        ) from error


def _error_of(scorer: Scorer, picked: NDArray[np.intp]) -> str:
    try:
        scorer(picked)
    except AdoptionError:
        raise
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises many types
        return str(error)[:160] or repr(error)
    return ""


def _shown(row: NDArray[np.float32]) -> str:
    """A row for a message: its first values."""
    values = ", ".join(f"{value:.9g}" for value in row[:8].tolist())
    return f"({values}{', ...' if len(row) > 8 else ''})"
