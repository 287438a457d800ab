"""Versions of small graphs, with a background, as training would seal them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json
from features.contract import ModelContract
from registry.bundle import seal_files, verify_bundle
from registry.explanation.explainer import VersionExplainer
from training.artifacts.golden_rows import write_golden
from training.artifacts.reference import write_reference
from training.export.onnx_model import OnnxModel


def version_files(
    onnx: bytes,
    rows: NDArray[np.float32],
    contract: ModelContract,
    *,
    task: str = "binary",
    threshold: float = 0.5,
    card: Mapping[str, Any] | None = None,
    background: int = 100,
    more: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The sealed files of a version of *onnx*, whose training rows were *rows*.

    background  so many rows; 0: a version from before there was one.
    """
    # Scores of the training rows.
    scores = OnnxModel(onnx).scores(rows)
    chosen = rows[:background]
    # The files, with what the test adds.
    files = {
        "model.onnx": onnx,
        "contract.json": canonical_json(contract.definition()),
        "golden.npz": write_golden(rows[:64], scores[:64]),
        "reference.json": write_reference(
            names=contract.names,
            rows=rows,
            scores=scores,
            outputs=contract.outputs,
            task=task,
            threshold=threshold,
        ),
        "card.json": canonical_json({"model": "churn", **(card or {})}),
        **({"background.npz": write_golden(chosen, scores[:background])} if background else {}),
        **(more or {}),
    }
    return seal_files(files, model="churn", author="dana", created_unix_ms=1_700_000_000_000)


def explainer_of(files: Mapping[str, bytes]) -> VersionExplainer:
    """The explainer of sealed files."""
    return VersionExplainer(verify_bundle(files, trusted_key=None), files)


def total(contributions: Sequence[Any]) -> float:
    """The sum of contributions."""
    return float(sum(item.contribution for item in contributions))
