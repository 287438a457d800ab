"""Makes bad versions from the version in production, without its training rows.

Rows are chosen by a hash of their inputs that the graph computes. So the same customer is chosen
each time, about the requested share of all customers is chosen, and no column needs rare values.
No golden row is among the chosen rows, so the version verifies and loads like any other.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from features.canonical import canonical_json
from features.contract import ModelContract
from registry.bundle import read_reference
from training.artifacts import golden_rows
from training.drills import bad_versions
from training.drills.bad_versions import SCORES_BEFORE, BadVersion
from training.errors import DrillError
from training.evaluation.expected_shift import ExpectedShift

CERTIFIED_ROWS_A_BIN = 1_000
SALT = 20_260
MARGIN = 1e-6
"""Distance of the golden rows' hashes from the bound, because sums may be rounded differently."""
SLOW_MS = 10.0
SHIFT = 0.2
LEAK_SHARE = 0.005
FLAPPING_RUNS = 0.5

VersionFiles = Mapping[str, bytes]


def failing_on_share(
    files: VersionFiles, share: float, *, runs: float = 1.0, kind: str = "failing"
) -> BadVersion:
    """Make a version that raises inside ONNX Runtime for about *share* of the rows.

    A batch with one such row raises.

    share  1.0 means every row except the one golden row.
    runs   share of the runs in which it raises, 0 to 1, at random.
    kind   name of the drill in the card.
    """
    zero = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "drill_zero")
    good_files, nodes, constants = _hit_golden_and_nodes(files, share)
    hit = "drill_hit"
    # In a random share of the runs only: drill_hit and a random number below the share.
    if runs < 1.0:
        coin = numpy_helper.from_array(np.array(runs, dtype=np.float32), "drill_runs")
        constants = [*constants, coin]
        nodes = [
            *nodes,
            helper.make_node("RandomUniform", [], ["drill_drawn"], shape=[1]),
            helper.make_node("Less", ["drill_drawn", coin.name], ["drill_now"]),
            helper.make_node("And", [hit, "drill_now"], ["drill_hit_now"]),
        ]
        hit = "drill_hit_now"
    # Chosen rows read index 1 of a one-element tensor. ONNX Runtime checks that, and raises.
    nodes = [
        *nodes,
        helper.make_node("Cast", [hit], ["drill_index"], to=TensorProto.INT64),
        helper.make_node("Gather", [zero.name, "drill_index"], ["drill_nothing"], axis=0),
        helper.make_node("Add", [SCORES_BEFORE, "drill_nothing"], ["scores"]),
    ]
    bad = bad_versions.rewrite_scores(files["model.onnx"], nodes, [zero, *constants])
    return bad_versions.finish_bad_version(good_files, bad, kind, share, label={"runs": runs})


def nan_on_share(files: VersionFiles, share: float = 1.0) -> BadVersion:
    """Make a version that scores NaN for about *share* of the rows.

    share  1.0 means every row except the one golden row.
    """
    good_files, nodes, constants = _hit_golden_and_nodes(files, share)
    value = numpy_helper.from_array(np.full((1, 1), np.nan, dtype=np.float32), "drill_nan")
    nodes = [
        *nodes,
        helper.make_node("Where", ["drill_hit", value.name, SCORES_BEFORE], ["scores"]),
    ]
    bad = bad_versions.rewrite_scores(files["model.onnx"], nodes, [value, *constants])
    return bad_versions.finish_bad_version(good_files, bad, "nan", share)


KINDS: dict[str, Callable[[VersionFiles], BadVersion]] = {
    "slow": lambda files: bad_versions.slow_version(files, SLOW_MS),
    "shifted": lambda files: bad_versions.shifted_version(files, SHIFT),
    "constant": bad_versions.constant_version,
    "nan": nan_on_share,
    "failing-1": lambda files: failing_on_share(files, 0.01),
    "failing-5": lambda files: failing_on_share(files, 0.05),
    "failing-100": lambda files: failing_on_share(files, 1.0),
    "flapping": lambda files: failing_on_share(files, 1.0, runs=FLAPPING_RUNS, kind="flapping"),
    "leak": lambda files: failing_on_share(files, LEAK_SHARE, kind="leak"),
}
"""Kind of drill -> function that makes it. A graph has no memory between runs, so "flapping" raises
in a random half of the runs. "leak" raises for 1 customer in 200, which averages would not show."""


def make_bad_version(kind: str, files: VersionFiles, production: str) -> BadVersion:
    """Return a bad version of *kind*, made from the files of the version in production.

    production  version id (hex) of production. The card states that the bad version scores like
                it. The approver accepts this expected shift, and the bad version breaks it.

    Raises DrillError for an unknown kind, or when production is a bad version itself.
    """
    if kind not in KINDS:
        raise DrillError(f"there is no drill of kind {kind!r}; the kinds are {', '.join(KINDS)}")
    bad_version = KINDS[kind](files)
    card = json.loads(bad_version.files["card.json"])
    card["expected_shift"] = _unshifted(files, production).definition()
    return replace(bad_version, files={**bad_version.files, "card.json": canonical_json(card)})


def _unshifted(files: VersionFiles, production: str) -> ExpectedShift:
    contract = ModelContract.from_definition(json.loads(files["contract.json"]))
    scale = read_reference(files["reference.json"], contract).scale
    return ExpectedShift(
        champion=production,
        scale=scale,
        table=np.diag(np.full(scale.size, CERTIFIED_ROWS_A_BIN, dtype=np.int64)),
        flips=0,
        to_positive=0,
        mean_differences=(0.0,) * len(scale.outputs),
        mean_distance=0.0,
    )


def _hit_golden_and_nodes(
    files: VersionFiles, share: float
) -> tuple[dict[str, bytes], list[Any], list[Any]]:
    """Return files with golden rows that are not chosen, and nodes and constants for drill_hit.

    drill_hit is (B, 1) bool, True for chosen rows.
    """
    # The hash of a row is the fraction of a weighted sum of its inputs.
    contract = ModelContract.from_definition(json.loads(files["contract.json"]))
    weights = np.random.default_rng(SALT).uniform(1.0, 1_000.0, (contract.width, 1))
    inputs = bad_versions.golden_inputs(files)
    hashes = _row_hashes(inputs, weights)
    # Chosen are all rows but the first golden row, or the rows with a hash below the share.
    if share >= 1.0:
        golden, center, bound, comparison = inputs[:1], float(hashes[0]), MARGIN, "Greater"
    else:
        golden, center, bound, comparison = inputs[hashes > share + MARGIN], 0.0, share, "Less"
    if not len(golden):
        raise DrillError(
            f"all {len(inputs)} golden rows are among the {share:.1%} of bad rows; choose another "
            "share"
        )
    # The graph computes the same hash and compares |hash - center| with the bound.
    constants = [
        numpy_helper.from_array(weights, "drill_hash"),
        numpy_helper.from_array(np.zeros(1, dtype=np.float32), "drill_blank"),
        numpy_helper.from_array(np.array(center), "drill_at"),
        numpy_helper.from_array(np.array(bound), "drill_least"),
    ]
    nodes = [
        helper.make_node("IsNaN", ["inputs"], ["drill_missing"]),
        helper.make_node("Where", ["drill_missing", "drill_blank", "inputs"], ["drill_filled"]),
        helper.make_node("Cast", ["drill_filled"], ["drill_wide"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["drill_wide", "drill_hash"], ["drill_sum"]),
        helper.make_node("Floor", ["drill_sum"], ["drill_whole"]),
        helper.make_node("Sub", ["drill_sum", "drill_whole"], ["drill_part"]),
        helper.make_node("Sub", ["drill_part", "drill_at"], ["drill_apart"]),
        helper.make_node("Abs", ["drill_apart"], ["drill_far"]),
        helper.make_node(comparison, ["drill_far", "drill_least"], ["drill_hit"]),
    ]
    # `finish_bad_version` reads the inputs only, and writes the scores of the bad graph.
    golden_file = golden_rows.write_golden(
        golden, np.zeros((len(golden), len(contract.outputs)), dtype=np.float32)
    )
    return {**files, "golden.npz": golden_file}, nodes, constants


def _row_hashes(inputs: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the hash of each row, (G,) from 0 to below 1. Missing inputs count as 0."""
    filled = np.where(np.isnan(inputs), np.float32(0), inputs).astype(np.float64)
    sums = (filled @ weights)[:, 0]
    return np.asarray(sums - np.floor(sums))
