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
from training.errors import AdoptionError
from training.export.convert import IR_VERSION, OPSET

ROWS = 10_000
"""Rows on which both graphs are compared, at least."""
TOLERANCE = 1e-5
"""A float32 has 1e-7, and a sum of some hundred of them ten to a hundred times that."""
USUAL_TIMES = 4
"""Values up to so many times the sample's largest are usual."""
SINGLE_ROWS_S = 10.0
"""After so much time no further row is scored alone."""
SINGLE_ROWS_MIN = 64
BATCH_ROWS = (2, 3, 64, 257)
BATCHES_MAX = 400
"""Batches of each size. 64 and 257 rows then cover all rows."""
BATCHES_S = 5.0
"""Time for the batches of each size."""

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, F) rows of the contract -> (N, K) scores. ONNX Runtime's errors are not caught."""


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

    sample  (S, F) rows in the contract's order, S at least 1: real rows, if there are any. Edge
            rows are added, and mixed rows until there are *count*.

    Both graphs are run, so this belongs in a child process with limits. Raises AdoptionError, which
    names the row, for other bits or a score that depends on the rows beside it.
    """
    rows = adapted_rows(model.onnx, adaptation, contract, sample, count=count)
    reference = reference_scorer(model, adaptation, contract)
    tolerance = usual_tolerance(_scores_of(reference, sample))
    comparison = _Comparison(reference, _adapted_scorer(adapted), tolerance, sample)
    rows, refused_rows = comparison.scorable(rows)
    if len(rows) == 0:
        raise AdoptionError(
            f"the graph refuses all {refused_rows} rows; give sample rows that it scores"
        )
    # Different bits may come of another fusion of operators. Run each operator on its own then.
    optimised = comparison.differs(rows) is None
    if not optimised:
        plain = _Comparison(
            reference_scorer(model, adaptation, contract, optimised=False),
            _adapted_scorer(adapted, optimised=False),
            tolerance,
            sample,
        )
        plain.refuse_difference(rows, "together")
        comparison.refuse_beyond_rounding(rows)
        comparison = plain
    # The same rows one by one, then in batches of other sizes and another order each.
    rng = np.random.default_rng(len(rows))
    singles = comparison.compare_single(rows, rng.permutation(len(rows)))
    for size in BATCH_ROWS:
        comparison.compare_batches(rows, rng.permutation(len(rows)), size)
    comparison.compare_single_again(rows)
    return GraphCertificate(
        rows=len(rows),
        single_rows=singles,
        batch_rows=BATCH_ROWS,
        refused_rows=refused_rows,
        optimised=optimised,
        company_max=comparison.company_max,
        tolerance=tolerance,
    )


def usual_tolerance(scores: NDArray[np.float32]) -> ScoreTolerance:
    """Return the tolerance to state for a model that scores so, (N, K).

    It is 1e-5 of the score, and 1e-5 of the size that scores usually have.
    """
    return ScoreTolerance(absolute=TOLERANCE * score_size(scores), relative=TOLERANCE)


def reference_scorer(
    model: ForeignModel,
    adaptation: Adaptation,
    contract: ModelContract,
    *,
    optimised: bool = True,
) -> Scorer:
    """Return what the foreign graph says of rows of the contract, without the adapted graph."""
    session = ForeignSession(model.onnx, optimised=optimised)
    maker = FeedMaker(model, adaptation, contract)
    transform = _transform_session(adaptation.transform)

    def scores(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        columns = session.run(maker.feed(rows), adaptation.output).astype(np.float32)
        if transform is not None:
            columns = transform.run({INPUTS: columns}, SCORES)
        return np.ascontiguousarray(columns[:, list(adaptation.selected)])

    return scores


def _adapted_scorer(adapted: bytes, *, optimised: bool = True) -> Scorer:
    session = ForeignSession(adapted, optimised=optimised)

    def scores(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run({INPUTS: rows}, SCORES)
        return result

    return scores


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


class _Comparison:
    """Compares two scorers on the same batches, and a row's scores with those that it has alone."""

    def __init__(
        self,
        reference: Scorer,
        adapted: Scorer,
        tolerance: ScoreTolerance,
        sample: NDArray[np.float32],
    ) -> None:
        """Take the scorers, how far scores may move, and the rows that say what usual values are.

        Bits are compared for all rows. Scores in company are compared for rows of usual values:
        sums of 3.4e38 and -3.4e38 depend on their order.
        """
        self._tolerance = tolerance
        finite = np.where(np.isfinite(sample), np.abs(sample), 0)
        self._usual_max = USUAL_TIMES * np.maximum(finite.max(axis=0), 1)
        self._reference = reference
        self._adapted = adapted
        self._single: dict[int, NDArray[np.float32]] = {}
        """Row -> its (K,) scores alone."""
        self.company_max = 0.0

    def _usual(self, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Say of each row whether all of its values are missing or of the sample's size."""
        within: NDArray[np.bool_] = np.isnan(rows) | (np.abs(rows) <= self._usual_max)
        return within.all(axis=1)

    def scorable(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
        """Return the rows that both score, and how many both refuse.

        Raises AdoptionError when only one of them refuses a row.
        """
        refused = np.zeros(len(rows), dtype=bool)
        pending = [np.arange(len(rows))]
        while pending:
            part = pending.pop()
            errors = [_error_of(scorer, rows[part]) for scorer in (self._reference, self._adapted)]
            if not any(errors):
                continue
            if len(part) > 1:
                pending += np.array_split(part, 2)
                continue
            if not all(errors):
                raise AdoptionError(
                    f"the row {_shown(rows[part[0]])} is refused by one graph only: the foreign "
                    f"graph says {errors[0] or 'a score'!r}, the adapted one "
                    f"{errors[1] or 'a score'!r}. {REPORT}"
                )
            refused[part] = True
        return rows[~refused], int(refused.sum())

    def differs(self, batch: NDArray[np.float32]) -> tuple[int, Any, Any] | None:
        """Return the first row with other bits, and both scores; None if there is none."""
        expected, found = self._reference(batch), self._adapted(batch)
        return _first_difference(expected, found)

    def refuse_difference(self, batch: NDArray[np.float32], company: str) -> NDArray[np.float32]:
        """Return the scores of a batch. AdoptionError for other bits."""
        expected, found = self._reference(batch), self._adapted(batch)
        different = _first_difference(expected, found)
        if different is not None:
            row, was, now = different
            raise AdoptionError(
                f"the row {_shown(batch[row])} scores {was} by the foreign graph and {now} by the "
                f"adapted one, {company}; equal bits are promised. {REPORT}"
            )
        return found

    def refuse_beyond_rounding(self, rows: NDArray[np.float32]) -> None:
        """Raise AdoptionError when optimised graphs differ by more than rounding."""
        expected, found = self._reference(rows), self._adapted(rows)
        usual = self._usual(rows)
        rows, expected, found = rows[usual], expected[usual], found[usual]
        if len(rows) == 0:
            return
        excess = score_differences(found, expected) - allowed_differences(self._tolerance, expected)
        row = int(np.argmax(excess.max(axis=1)))
        if excess[row].max() > 0:
            raise AdoptionError(
                f"the row {_shown(rows[row])} scores {expected[row].tolist()} by the foreign graph "
                f"and {found[row].tolist()} by the adapted one, as onnxruntime optimises them. "
                f"{REPORT}"
            )

    def compare_single(self, rows: NDArray[np.float32], order: NDArray[np.intp]) -> int:
        """Compare rows one by one, as many as SINGLE_ROWS_S allows. Return their number."""
        until = time.perf_counter() + SINGLE_ROWS_S
        for row in order.tolist():
            if len(self._single) >= SINGLE_ROWS_MIN and time.perf_counter() > until:
                break
            self._single[row] = self.refuse_difference(rows[row : row + 1], "alone")[0]
        return len(self._single)

    def compare_batches(
        self, rows: NDArray[np.float32], order: NDArray[np.intp], size: int
    ) -> None:
        """Compare batches of *size* rows that follow each other in *order*."""
        until = time.perf_counter() + BATCHES_S
        for first in range(0, min(len(order), BATCHES_MAX * size), size):
            if first and time.perf_counter() > until:
                break
            part = order[first : first + size]
            company = f"in a batch of {len(part)}"
            found = self.refuse_difference(rows[part], company)
            self._refuse_company(rows, part, found, company)

    def compare_single_again(self, rows: NDArray[np.float32]) -> None:
        """Score some rows alone again: no batch may have changed a later one."""
        for row in list(self._single)[:SINGLE_ROWS_MIN]:
            found = self._adapted(rows[row : row + 1])
            self._refuse_company(rows, np.array([row]), found, "alone again, after other batches")

    def _refuse_company(
        self,
        rows: NDArray[np.float32],
        part: NDArray[np.intp],
        found: NDArray[np.float32],
        company: str,
    ) -> None:
        """Raise AdoptionError when scores in company are not those that the rows have alone."""
        usual = self._usual(rows[part])
        known = [
            index for index, row in enumerate(part.tolist()) if usual[index] and row in self._single
        ]
        if not known:
            return
        single = np.stack([self._single[int(part[index])] for index in known])
        differences = score_differences(found[known], single)
        excess = (differences - allowed_differences(self._tolerance, single)).max(axis=1)
        worst = int(np.argmax(excess))
        if excess[worst] > 0:
            raise AdoptionError(
                f"the row {_shown(rows[part[known[worst]]])} scores {single[worst].tolist()} alone "
                f"and {found[known[worst]].tolist()} {company}; {OWN_ROW_ONLY}"
            )
        self.company_max = max(self.company_max, float(differences.max()))


REPORT = "This is a mistake of the adaptation; report it with the model file"


def _scores_of(scorer: Scorer, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score sample rows. AdoptionError if the graph refuses them."""
    try:
        return scorer(rows)
    except AdoptionError:
        raise
    except Exception as error:
        raise AdoptionError(
            f"the graph does not score the sample rows: {str(error)[:300]}. Give rows as the model "
            "was fitted on"
        ) from error


def _error_of(scorer: Scorer, rows: NDArray[np.float32]) -> str:
    try:
        scorer(rows)
    except AdoptionError:
        raise
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises many types
        return str(error)[:160] or repr(error)
    return ""


def _first_difference(
    expected: NDArray[np.float32], found: NDArray[np.float32]
) -> tuple[int, Any, Any] | None:
    if expected.shape != found.shape:
        return 0, f"shape {expected.shape}", f"shape {found.shape}"
    same = expected.view(np.uint32) == found.view(np.uint32)
    same |= np.isnan(expected) & np.isnan(found)
    if same.all():
        return None
    row = int(np.flatnonzero(~same.all(axis=1))[0])
    return row, expected[row].tolist(), found[row].tolist()


def _shown(row: NDArray[np.float32]) -> str:
    """A row for a message: its first values."""
    values = ", ".join(f"{value:.9g}" for value in row[:8].tolist())
    return f"({values}{', ...' if len(row) > 8 else ''})"
