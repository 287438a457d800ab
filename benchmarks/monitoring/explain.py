"""How long an explanation takes, and whether each adds up to the score: `--only explain`.

A boosted model of 100 trees with 31 leaves and 20 inputs is explained against 100 rows: row by row,
for the time of one explanation with all its checks, and in batches, whose sums are compared with
those of ONNX Runtime. Deeper trees (63 leaves, at most 30 splits below each other) are a second
model.
"""

import json
import time
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.monitoring.bars import MeasuredBar, MonitoringOptions
from features.contract import ModelContract, RequestInput
from registry.bundle import seal_files, verify_bundle
from registry.explanation.explainer import ADDITIVE_MAX, VersionExplainer
from training.artifacts.golden_rows import write_golden
from training.artifacts.reference import write_reference
from training.export.convert import convert_to_onnx
from training.export.onnx_model import OnnxModel

INPUTS = 20
TRAINED_ROWS = 20_000
BACKGROUND_ROWS = 100
P50_MS_MAX = 5.0
SUMMED_AT_ONCE = 2_000
SHAPES = {"100 trees x 31 leaves": (31, None), "100 trees x 63 leaves": (63, 30)}
"""What is measured -> (leaves, depth) of a tree."""
FIRST = next(iter(SHAPES))


def made_rows(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return rows (N, INPUTS) of skewed numbers, counts and missing values, and labels (N,)."""
    rng = np.random.default_rng(seed)
    rows = rng.lognormal(size=(count, INPUTS)).astype(np.float32)
    rows[:, ::3] = np.floor(rows[:, ::3] * 5)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    filled = np.nan_to_num(rows, nan=0.5)
    odds = filled[:, 0] / 6 - filled[:, 1] + filled[:, 2] * filled[:, 4] / 2 - filled[:, 7] / 3
    positive = rng.random(count) < 1 / (1 + np.exp(-odds - 0.3))
    return rows, positive.astype(np.int64)


def made_version(leaves: int, depth: int | None) -> tuple[VersionExplainer, dict[str, bytes]]:
    """Return the explainer and the files of a version that is fitted now."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from training.export.thresholds import round_boosted_thresholds

    # Fit and convert, as a recipe of the kind "boosting" does.
    rows, labels = made_rows(TRAINED_ROWS, 1)
    model: Any = HistGradientBoostingClassifier(
        max_iter=100,
        max_leaf_nodes=leaves,
        max_depth=depth,
        min_samples_leaf=5,
        early_stopping=False,
        random_state=1,
    ).fit(rows.astype(np.float64), labels)
    round_boosted_thresholds(model)
    contract = ModelContract(
        entities=("subscriber",),
        inputs=tuple(RequestInput(name=f"f{index}") for index in range(INPUTS)),
    )
    graph = convert_to_onnx(
        model, name="churn", width=INPUTS, model_contract=contract.model_contract
    )
    # Seal it with its background.
    scores = OnnxModel(graph).scores(rows)
    # Rows that it was fitted on are what a score is compared with.
    background = rows[:BACKGROUND_ROWS]
    files = seal_files(
        {
            "model.onnx": graph,
            "contract.json": json.dumps(contract.definition()).encode(),
            "golden.npz": write_golden(rows[:64], scores[:64]),
            "background.npz": write_golden(background, scores[:BACKGROUND_ROWS]),
            "reference.json": write_reference(
                names=contract.names,
                rows=rows,
                scores=scores,
                outputs=contract.outputs,
                task="binary",
                threshold=0.5,
            ),
            "card.json": b"{}",
        },
        model="churn",
        author="bench",
        created_unix_ms=0,
    )
    return VersionExplainer(verify_bundle(files, trusted_key=None), files), files


def path_depth(explainer: VersionExplainer) -> int:
    """Return how many comparisons the deepest leaf lies below."""
    assert explainer.form.trees is not None
    return int(np.diff(explainer.form.trees.paths.start).max())


def single_times_ms(explainer: VersionExplainer, asked: int) -> NDArray[np.float64]:
    """Return work and time of each of *asked* explanations, each of another row, (asked, 2).

    Work is processor time of this thread, which other programs on the machine do not change.
    """
    rows, _ = made_rows(asked, 2)
    scores = explainer.score(rows)[:, 0]
    took = np.empty((asked, 2))
    for index, row in enumerate(rows):
        began, worked = time.perf_counter(), time.thread_time()
        explainer.explain(row, 0, float(scores[index]))
        took[index] = time.thread_time() - worked, time.perf_counter() - began
    return took * 1e3


def largest_gap(explainer: VersionExplainer, count: int) -> float:
    """Return how far base and contributions of *count* rows are from ONNX Runtime's sums."""
    # The sums in front of the Sigmoid, from the version's own graph.
    model = onnx.load_model_from_string(explainer.bundle.onnx)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(explainer.form.raw))
    sums = OnnxModel(model.SerializeToString(), explainer.form.raw)
    worst = 0.0
    for start in range(0, count, SUMMED_AT_ONCE):
        rows, _ = made_rows(min(SUMMED_AT_ONCE, count - start), 100 + start)
        base, shares = explainer.contributions(rows)
        totals = base + shares.sum(axis=1)
        worst = max(worst, float(np.abs(totals - sums.scores(rows)[:, 0]).max()))
    return worst


def measure_shape(shape: str, rows: int, asked: int) -> dict[str, Any]:
    """Return what was measured of one shape of trees."""
    began = time.perf_counter()
    explainer, files = made_version(*SHAPES[shape])
    fitted_s = time.perf_counter() - began
    # Prepare it once more, as a child does for the first question.
    began = time.perf_counter()
    VersionExplainer(explainer.bundle, files)
    prepared_ms = (time.perf_counter() - began) * 1e3
    # One by one with all checks, then many in batches.
    took = single_times_ms(explainer, asked)
    began = time.thread_time()
    gap = largest_gap(explainer, rows)
    batch_us = (time.thread_time() - began) / rows * 1e6
    return {
        "model": shape,
        "deepest": path_depth(explainer),
        "fitted_s": round(fitted_s, 1),
        "prepared_ms": round(prepared_ms),
        "p50_ms": round(float(np.quantile(took[:, 0], 0.5)), 2),
        "p99_ms": round(float(np.quantile(took[:, 0], 0.99)), 2),
        "wall_p50_ms": round(float(np.quantile(took[:, 1], 0.5)), 2),
        "rows": rows,
        "largest_gap": gap,
        "batch_us_a_row": round(batch_us),
    }


def main(options: MonitoringOptions) -> list[MeasuredBar]:
    """Measure each shape of trees."""
    # A small version tries the code and states no bar.
    rows, asked = (2_000, 100) if options.quick else (100_000, 1_000)
    bars = []
    for shape in SHAPES:
        # Deep trees take longer a row, so fewer rows are compared.
        found = measure_shape(
            shape, rows if shape == FIRST else rows // 20, options.rounds or asked
        )
        bars += [
            MeasuredBar(
                subject=f"{shape}: work of an explanation, p50",
                measured=f"{found['p50_ms']:.2f} ms (p99 {found['p99_ms']:.2f}, by the clock "
                f"{found['wall_p50_ms']:.2f})",
                promised=f"<= {P50_MS_MAX:g} ms" if shape == FIRST else "",
                passed=found["p50_ms"] <= P50_MS_MAX if shape == FIRST else None,
                numbers=found,
            ),
            MeasuredBar(
                subject=f"{shape}: largest gap to the sum, {found['rows']:,} rows",
                measured=f"{found['largest_gap']:.2g}",
                promised=f"<= {ADDITIVE_MAX:g}",
                passed=found["largest_gap"] <= ADDITIVE_MAX,
                numbers={"rows": found["rows"], "largest_gap": found["largest_gap"]},
            ),
            MeasuredBar(
                subject=f"{shape}: preparing the version",
                measured=f"{found['prepared_ms']} ms; then {found['batch_us_a_row']} us a row in "
                "batches",
                numbers={name: found[name] for name in ("prepared_ms", "batch_us_a_row")},
            ),
        ]
    return bars
