"""Bad versions made from whatever is in production, without its training rows.

Rows are chosen by a hash of their own inputs, computed inside the graph: the same customer is hit
each time, about the asked share of all customers is, and no column has to be rare. The golden
rows are among those that are not hit, so each version verifies and loads like any other.
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
from training.artifacts import golden_rows
from training.drills import bad_versions
from training.drills.bad_versions import SCORES_BEFORE, BadVersion
from training.errors import DrillError
from training.evaluation.expected_shift import ExpectedShift

CERTIFIED_ROWS_A_BIN = 1_000
SALT = 20_260
MARGIN = 1e-6
"""Golden rows stay so far from the edge of what is hit: sums may be rounded in another order."""
SLOW_MS = 10.0
SHIFT = 0.2
LEAK_SHARE = 0.005
FLAPPING_RUNS = 0.5

VersionFiles = Mapping[str, bytes]


def failing_on_share(
    files: VersionFiles, share: float, *, runs: float = 1.0, kind: str = "failing"
) -> BadVersion:
    """Raise inside ONNX Runtime on about *share* of the rows, in *runs* of its runs (0 to 1).

    share 1.0: on every row but the golden one. A batch with one such row raises whole.
    """
    zero = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "drill_zero")
    kept, nodes, constants = _hit_golden_and_nodes(files, share)
    hit = "drill_hit"
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
    nodes = [
        *nodes,
        helper.make_node("Cast", [hit], ["drill_index"], to=TensorProto.INT64),
        # Index 1 of a one-element tensor: ONNX Runtime checks bounds at run time and raises.
        helper.make_node("Gather", [zero.name, "drill_index"], ["drill_nothing"], axis=0),
        helper.make_node("Add", [SCORES_BEFORE, "drill_nothing"], ["scores"]),
    ]
    bad = bad_versions.rewrite_scores(files["model.onnx"], nodes, [zero, *constants])
    return bad_versions.finish_bad_version(kept, bad, kind, share, label={"runs": runs})


def nan_on_share(files: VersionFiles, share: float = 1.0) -> BadVersion:
    """Answer NaN on about *share* of the rows; 1.0: on every row but the golden one."""
    kept, nodes, constants = _hit_golden_and_nodes(files, share)
    value = numpy_helper.from_array(np.full((1, 1), np.nan, dtype=np.float32), "drill_nan")
    nodes = [
        *nodes,
        helper.make_node("Where", ["drill_hit", value.name, SCORES_BEFORE], ["scores"]),
    ]
    bad = bad_versions.rewrite_scores(files["model.onnx"], nodes, [value, *constants])
    return bad_versions.finish_bad_version(kept, bad, "nan", share)


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
"""Kind -> how it is made. A graph has no memory between runs: flapping tosses a coin a run, and a
leak is a trickle, 1 customer in 200, that nobody would notice in a day's averages."""


def make_bad_version(kind: str, files: VersionFiles, production: str) -> BadVersion:
    """Return a bad version of *kind* made from production's files.

    production  its id (hex): the card certifies that this version scores exactly like it, which is
                what its approver accepts, and what the bad ones do not keep.

    Raises DrillError for an unknown kind, or when production is a drill itself.
    """
    if kind not in KINDS:
        raise DrillError(f"no drill of kind {kind!r}; there are {', '.join(KINDS)}")
    made = KINDS[kind](files)
    card = json.loads(made.files["card.json"])
    card["expected_shift"] = _unshifted(files, production).definition()
    return replace(made, files={**made.files, "card.json": canonical_json(card)})


def _unshifted(files: VersionFiles, production: str) -> ExpectedShift:
    reference = json.loads(files["reference.json"])
    edges = np.array(reference["score"]["edges"], dtype=np.float32)
    return ExpectedShift(
        champion=production,
        edges=edges,
        table=np.diag(np.full(len(edges) + 1, CERTIFIED_ROWS_A_BIN, dtype=np.int64)),
        flips=0,
        to_positive=0,
        mean_difference=0.0,
    )


def _hit_golden_and_nodes(
    files: VersionFiles, share: float
) -> tuple[dict[str, bytes], list[Any], list[Any]]:
    """Return files with golden rows that are not hit, and nodes that give drill_hit (B, 1) bool."""
    contract = ModelContract.from_definition(json.loads(files["contract.json"]))
    weights = np.random.default_rng(SALT).uniform(1.0, 1_000.0, (contract.width, 1))
    inputs = bad_versions.golden_inputs(files)
    parts = _row_hashes(inputs, weights)
    if share >= 1.0:
        kept, at, least, beyond = inputs[:1], float(parts[0]), MARGIN, "Greater"
    else:
        kept, at, least, beyond = inputs[parts > share + MARGIN], 0.0, share, "Less"
    if not len(kept):
        raise DrillError(f"each of {len(inputs)} golden rows is among the {share:.1%} to be hit")
    constants = [
        numpy_helper.from_array(weights, "drill_hash"),
        numpy_helper.from_array(np.zeros(1, dtype=np.float32), "drill_blank"),
        numpy_helper.from_array(np.array(at), "drill_at"),
        numpy_helper.from_array(np.array(least), "drill_least"),
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
        helper.make_node(beyond, ["drill_far", "drill_least"], ["drill_hit"]),
    ]
    written = golden_rows.write_golden(
        kept, np.zeros((len(kept), len(contract.outputs)), dtype=np.float32)
    )
    return {**files, "golden.npz": written}, nodes, constants


def _row_hashes(inputs: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(G,) the hash of each row, in [0, 1)."""
    filled = np.where(np.isnan(inputs), np.float32(0), inputs).astype(np.float64)
    total = (filled @ weights)[:, 0]
    return np.asarray(total - np.floor(total))
