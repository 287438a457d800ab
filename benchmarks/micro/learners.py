"""Prints what every learner's graph differs by from its library, and what a row costs.

    python -m benchmarks.micro.learners            the table of learners and tasks
    python -m benchmarks.micro.learners --traps    what recipes are refused for, measured

Each number is over 20,000 rows that were not fitted on, the edges of the contract, rows at every
threshold and a row for each leaf. Probabilities differ absolutely; values and anomalies by a part
of the size that they usually have, or of the value if that is larger.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.micro.learner_cases import (
    LEARNERS,
    TRAPS,
    Case,
    population,
    recipe_of,
    targets_of,
)
from gateway.models.native_scorer import NativeScorer, load_tree_reader, prove_native
from registry.golden import score_size
from registry.scoring import Session, open_onnx
from training.adoption.graph.tree_rows import leaf_rows, threshold_neighbours
from training.adoption.native_form import why_not_native
from training.export.edge_rows import base_rows, contract_edges
from training.export.learner_lint import learner_problems
from training.export.onnx_model import OnnxModel

FITTED_ROWS = 5_000
CHECKED_ROWS = 20_000
BATCH_ROWS = 64
TIMED_ROWS = 6_400
REPEATS = 7


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one case.

    difference  largest difference over all rows; None: the library or its converter refused.
    edges       number of edge rows.
    runtime_us  of a row by ONNX Runtime, in batches of BATCH_ROWS.
    native_us   of a row by the native library; None: ONNX Runtime scores.
    note        why not natively, or the refusal.
    """

    difference: float | None
    edges: int = 0
    runtime_us: float = 0.0
    native_us: float | None = None
    note: str = ""


def measure_learner(case: Case, *, timed: bool = True) -> Measured:
    """Fit, convert and compare one case."""
    from training.errors import ConversionError, RecipeError
    from training.learners.fit import fit_recipe

    recipe = recipe_of(case)
    rows = population(FITTED_ROWS + CHECKED_ROWS, missing=case.missing)
    targets = targets_of(case.task, rows)
    fitted = np.arange(len(rows)) < FITTED_ROWS
    # Fit, and convert.
    try:
        model = fit_recipe(recipe, rows, targets, fitted)
        graph = model.to_onnx(name="m", width=rows.shape[1], model_contract="c0")
    except (RecipeError, ConversionError) as error:
        return Measured(None, note=" ".join(str(error).split())[:160])
    # Compare on all rows and edges.
    checked = rows[~fitted]
    bases = base_rows(checked)
    edges = [contract_edges(recipe.contract, bases), threshold_neighbours(graph, bases)]
    edges.append(leaf_rows(graph, bases))
    every = np.concatenate([checked, *edges])
    truth, found = model.outputs(every), OnnxModel(graph).scores(every).astype(np.float64)
    # Values have a size of their own, and a sum of thousands may cancel.
    size = np.ones_like(truth)
    if case.task in ("regression", "anomaly"):
        usual = score_size(truth[: len(checked)].astype(np.float32))
        size = np.maximum(usual, np.abs(truth))
    differences = np.abs(truth - found) / size
    differences[np.isnan(truth) & np.isnan(found)] = 0.0
    worst = float(np.nan_to_num(differences, nan=np.inf).max())
    if not timed:
        return Measured(worst, len(every) - len(checked))
    # What a row costs, when every batch has rows that were not seen before.
    count = len(every) - len(checked)
    runtime_us = _row_us(OnnxModel(graph).scores, checked)
    reason, read = why_not_native(graph), load_tree_reader()
    if reason or read is None:
        return Measured(worst, count, runtime_us, note=reason or "not built")
    session = Session(open_onnx(graph), rows.shape[1], found.shape[1])
    trees = prove_native(graph, checked[:64], session, read)
    if not isinstance(trees, NativeScorer):
        return Measured(worst, count, runtime_us, note=trees)
    return Measured(worst, count, runtime_us, _row_us(trees.run, checked))


def _row_us(run: Callable[[NDArray[np.float32]], object], rows: NDArray[np.float32]) -> float:
    """Return the least processor time of a row in batches of BATCH_ROWS, in microseconds."""
    batches = [rows[start : start + BATCH_ROWS] for start in range(0, TIMED_ROWS, BATCH_ROWS)]
    best = np.inf
    for _ in range(REPEATS):
        began = time.process_time_ns()
        for batch in batches:
            run(batch)
        best = min(best, (time.process_time_ns() - began) / TIMED_ROWS / 1_000)
    return float(best)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traps", action="store_true", help="what recipes are refused for")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = [case for case in (TRAPS if options.traps else LEARNERS) if options.only in case.name]
    if options.traps:
        print("| recipe | task | largest difference | the lint |\n|---|---|---|---|")
        for case in cases:
            found = measure_learner(case, timed=False)
            verdict = "refused" if learner_problems(case.learner, case.task) else "accepted"
            print(f"| {case.name} | {case.task} | {_shown(found)} | {verdict} |", flush=True)
        return
    print("| learner | task | largest difference | edge rows | native us | ONNX Runtime us |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        found = measure_learner(case)
        native = f"{found.native_us:.2f}" if found.native_us is not None else "-"
        print(
            f"| {case.name} | {case.task} | {_shown(found)} | {found.edges:,} | {native} | "
            f"{found.runtime_us:.2f} |",
            flush=True,
        )


def _shown(found: Measured) -> str:
    return found.note if found.difference is None else f"{found.difference:.2g}"


if __name__ == "__main__":
    main()
