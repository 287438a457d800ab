"""Adapts a foreign graph, proves it, and chooses golden rows with the scores of the original."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from registry.golden import ScoreTolerance
from registry.scoring import allowed_differences, score_differences
from registry.version_proof import GOLDEN_ROWS_MIN
from training.adopted.adopted_contract import rows_of_feed
from training.adopted.proposals import foreign_columns
from training.adoption.adapt_graph import adapt_graph
from training.adoption.certificate import certify_graph
from training.adoption.edge_feed import adapted_rows
from training.adoption.foreign import Adaptation, ForeignModel
from training.adoption.foreign_feed import FeedMaker
from training.adoption.library_certificate import (
    LibraryCertificate,
    certify_library,
    transformed,
)
from training.adoption.native_form import native_form, why_not_native
from training.artifacts.golden_rows import choose_golden_rows
from training.errors import AdoptionError
from training.export.onnx_model import OnnxModel


@dataclass(frozen=True, eq=False, slots=True)
class ProvenGraph:
    """An adapted graph, and what proves it.

    onnx            from `inputs` (B, F) to `scores` (B, K): the adapted graph, or its native form.
    native          whether gateways score it natively, as JSON: `used`, and the `reason` if not.
    graph           the comparison of the adapted graph with the file's (GraphCertificate), as
                    JSON values.
    library         the comparison with the original library, or, for an ONNX file, only what
                    rounding to float32 changes (LibraryCertificate), as JSON values.
    by_library      whether the library scored the golden rows.
    tolerance       how exact the scores are.
    golden_inputs   (G, F).
    golden_outputs  (G, K): the library's scores, or the graph's.
    scores          (S, K) of the sample rows, by the adapted graph.
    """

    onnx: bytes
    native: dict[str, Any]
    graph: dict[str, Any]
    library: dict[str, Any]
    by_library: bool
    tolerance: ScoreTolerance
    golden_inputs: NDArray[np.float32]
    golden_outputs: NDArray[np.float32]
    scores: NDArray[np.float32]


def prove_graph(
    foreign: ForeignModel,
    adaptation: Adaptation,
    contract: ModelContract,
    sample: NDArray[np.float32],
    exact: Mapping[str, NDArray[Any]],
    *,
    threshold: float,
) -> ProvenGraph:
    """Adapt the graph of *foreign* to *contract*, and compare it with what it was made from.

    sample     (S, F) rows in the contract's order, S at least 1.
    exact      the columns of the sample as they were given (training.adopted.sample).
    threshold  of decisions.

    Both graphs are run. Raises AdoptionError when they differ, when the library's scores differ by
    more than the tolerance, or when too few rows have finite scores.
    """
    adapted = adapt_graph(foreign, adaptation, contract)
    graph = certify_graph(foreign, adaptation, contract, adapted, sample)
    # Boosted trees take the form that gateways score fastest, if they can.
    native = native_form(adapted, adapted_rows(foreign.onnx, adaptation, contract, sample, count=0))
    onnx = native.onnx or adapted
    model = OnnxModel(onnx)
    by_library = adaptation.output in foreign.truth
    if by_library:
        # The library is the judge, on the rows that callers can send.
        library = certify_library(foreign, adaptation, threshold=threshold)
        rows, sayable = rows_of_feed(foreign.rows, adaptation, contract)
        truth = _served_truth(foreign, adaptation)
        usable, real = sayable & all_finite(truth), foreign.sample_rows
        # The native form moves a score by its last bits, which may be beyond the tolerance.
        if native.onnx is not None and not _within(model, rows[usable], truth[usable], library):
            onnx, native = adapted, replace(native, onnx=None, reason=why_not_native(adapted))
            model = OnnxModel(onnx)
    else:
        # The file is its own truth: it certifies what it says itself.
        library = _certify_rounding(foreign, adaptation, contract, sample, exact, threshold)
        rows = adapted_rows(foreign.onnx, adaptation, contract, sample, count=0)
        truth = _scores(model, rows)
        usable, real = all_finite(truth), len(sample)
    if usable.sum() < GOLDEN_ROWS_MIN:
        raise AdoptionError(
            f"{int(usable.sum())} rows have finite scores, of at least {GOLDEN_ROWS_MIN}; give "
            "--sample FILE with rows that the model scores"
        )
    # Golden rows: sample rows, then edge rows.
    held, edges = usable & (np.arange(len(rows)) < real), usable & (np.arange(len(rows)) >= real)
    tolerance = library.tolerance if by_library else graph.tolerance
    return ProvenGraph(
        onnx=onnx,
        native={"used": not native.reason, "reason": native.reason},
        graph=graph.definition(),
        library=library.definition(),
        by_library=by_library,
        tolerance=tolerance,
        golden_inputs=choose_golden_rows(rows[held], rows[edges]),
        golden_outputs=choose_golden_rows(truth[held], truth[edges]),
        scores=_scores(model, sample),
    )


def _within(
    model: OnnxModel,
    rows: NDArray[np.float32],
    truth: NDArray[np.float32],
    library: LibraryCertificate,
) -> bool:
    """Return whether the scores of *rows* are the library's, within the tolerance."""
    differences = score_differences(model.scores(rows), truth)
    return bool((differences <= allowed_differences(library.tolerance, truth)).all())


def _served_truth(foreign: ForeignModel, adaptation: Adaptation) -> NDArray[np.float32]:
    """Return (N, K): what the library says of `foreign.rows`, for the served columns."""
    truth = transformed(foreign.truth[adaptation.output].astype(np.float64), adaptation.transform)
    return np.asarray(truth[:, list(adaptation.selected)], dtype=np.float32)


def _certify_rounding(
    foreign: ForeignModel,
    adaptation: Adaptation,
    contract: ModelContract,
    sample: NDArray[np.float32],
    exact: Mapping[str, NDArray[Any]],
    threshold: float,
) -> LibraryCertificate:
    """Return what float32 changes for a graph with float64 inputs; nothing for others."""
    rounded = FeedMaker(foreign, adaptation, contract).feed(sample)
    given: dict[str, NDArray[Any]] = {name: values.copy() for name, values in rounded.items()}
    for column in foreign_columns(foreign):
        if column.kind == "double":
            given[column.foreign_input][:, column.column] = exact[column.name]
    known = replace(foreign, rows=rounded, sample_rows=len(sample))
    doubles = any(item.kind == "double" for item in foreign.inputs)
    return certify_library(known, adaptation, exact=given if doubles else None, threshold=threshold)


def all_finite(scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (N,) whether all scores of a row, (N, K), are finite."""
    return np.asarray(np.isfinite(scores).all(axis=1), dtype=np.bool_)


def _scores(model: OnnxModel, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores of *rows*, (N, K); NaN for rows that the graph refuses."""
    try:
        return model.scores(rows)
    except Exception:  # noqa: BLE001  ONNX Runtime raises many types
        return _scores_alone(model, rows)


def _scores_alone(model: OnnxModel, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score each row alone; a row that the graph refuses has NaN."""
    found: list[NDArray[np.float32] | None] = []
    for row in rows:
        try:
            found.append(model.scores(row[np.newaxis])[0])
        except Exception:  # noqa: BLE001  ONNX Runtime raises many types
            found.append(None)
    width = next((len(scores) for scores in found if scores is not None), 1)
    nan = np.full(width, np.nan, dtype=np.float32)
    return np.stack([nan if scores is None else scores for scores in found])
