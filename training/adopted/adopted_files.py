"""Writes the files of an adopted version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract
from registry.explanation.background import BACKGROUND
from training.adopted.answers import Answers
from training.adopted.proven_graph import ProvenGraph, all_finite
from training.adopted.sample_metrics import NOTE
from training.adoption.foreign import ForeignModel
from training.artifacts import card, golden_rows, reference
from training.errors import AdoptionError
from training.evaluation.expected_shift import section_digests, shift_without_champion
from training.evaluation.metrics import Estimate

ACCEPTED = ("data", "golden", "parity", "rounding", "metrics")
"""Sections of the card that an approver accepts by the digest of `expected_shift`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an adopted version comes from.

    file         name of the foreign file.
    file_sha256  its SHA-256 (hex); of a folder that of its files.
    sample       a sentence on where the sample rows come from.
    is_real      whether no part of a sample row is made up.
    commit       git commit of the project, or "unknown".
    """

    file: str
    file_sha256: str
    sample: str
    is_real: bool = False
    commit: str = "unknown"


def decision_threshold(answers: Answers, scores: NDArray[np.float32]) -> float:
    """Return the score from which on a row is positive, for the first of the scores (S, K)."""
    if answers.threshold is not None:
        return answers.threshold
    if answers.task in ("binary", "multiclass"):
        return 0.5
    finite = scores[np.isfinite(scores[:, 0]), 0]
    return float(np.median(finite)) if len(finite) else 0.0


def adopted_files(
    model: str,
    foreign: ForeignModel,
    answers: Answers,
    contract: ModelContract,
    proven: ProvenGraph,
    sample: NDArray[np.float32],
    provenance: Provenance,
    metrics: Mapping[str, Estimate],
    describe: Callable[[Mapping[str, bytes], NDArray[np.float32]], Mapping[str, Any]],
) -> dict[str, bytes]:
    """Return model.onnx, contract.json, golden.npz, reference.json and card.json.

    Of a real sample some rows are sealed as background.npz, which explanations compare with.

    sample   (S, F) rows in the contract's order.
    metrics  of the sample rows; empty without labels.
    describe  takes a version's files and the rows with finite scores, and returns more facts for
              the card, such as whether scores can be explained (`facts_in_sandbox`).

    The same arguments give the same bytes. Raises AdoptionError when no sample row has finite
    scores.
    """
    # Bins need scores.
    finite = all_finite(proven.scores)
    if not finite.any():
        raise AdoptionError(
            f"none of the {len(finite)} sample rows has finite scores; give other rows with "
            "--sample FILE"
        )
    threshold = decision_threshold(answers, proven.scores)
    files = _proven_files(answers, contract, proven, sample, threshold, provenance)
    # The card says where all of it comes from.
    facts = {
        **_origin_facts(model, foreign, answers, contract, provenance),
        "threshold": threshold,
        "score_tolerance": {
            "absolute": proven.tolerance.absolute,
            "relative": proven.tolerance.relative,
        },
        "data": {"sample": provenance.sample, "rows": len(sample)},
        **_evidence(foreign, proven),
        **_metric_facts(metrics),
    }
    facts |= describe({**files, "card.json": canonical_json(facts)}, sample[finite])
    # An approver accepts by its digest what proves the version.
    sections = [name for name in ACCEPTED if name in facts]
    facts["expected_shift"] = shift_without_champion(section_digests(facts, sections))
    return {**files, "card.json": canonical_json(facts)}


def _proven_files(
    answers: Answers,
    contract: ModelContract,
    proven: ProvenGraph,
    sample: NDArray[np.float32],
    threshold: float,
    provenance: Provenance,
) -> dict[str, bytes]:
    """Return all files but the card. The sample gives bins, and rows to compare scores with."""
    finite = all_finite(proven.scores)
    return {
        **(_background(sample[finite], proven.scores[finite]) if provenance.is_real else {}),
        "model.onnx": proven.onnx,
        "contract.json": canonical_json(contract.definition()),
        "golden.npz": golden_rows.write_golden(proven.golden_inputs, proven.golden_outputs),
        "reference.json": reference.write_reference(
            names=contract.names,
            rows=sample,
            scores=proven.scores[finite],
            outputs=contract.outputs,
            task=answers.task,
            threshold=threshold,
        ),
    }


def _background(rows: NDArray[np.float32], scores: NDArray[np.float32]) -> dict[str, bytes]:
    """Return background.npz with some of the (S, F) rows, with those of the scores (S, K)."""
    chosen = golden_rows.choose_background_rows(np.hstack([rows, scores]), seed=0)
    inputs, outputs = chosen[:, : rows.shape[1]], chosen[:, rows.shape[1] :]
    return {BACKGROUND: golden_rows.write_golden(inputs, outputs)}


def _origin_facts(
    model: str,
    foreign: ForeignModel,
    answers: Answers,
    contract: ModelContract,
    provenance: Provenance,
) -> dict[str, Any]:
    """Return the facts that file, answers and packages determine."""
    return {
        "format": card.FORMAT,
        "model": model,
        "adopted": {
            "file": provenance.file,
            "file_sha256": provenance.file_sha256,
            "origin": foreign.origin,
            "answers": answers.definition(),
            "warnings": list(foreign.warnings),
        },
        "task": answers.task,
        "names": list(contract.names),
        "model_contract": contract.model_contract,
        **card.code_facts(provenance.commit),
    }


def _evidence(foreign: ForeignModel, proven: ProvenGraph) -> dict[str, Any]:
    """Return who scored the golden rows, and what was compared with what."""
    evidence: dict[str, Any] = {
        "golden": {
            "scored_by": foreign.truth_by if proven.by_library else "",
            "rows": len(proven.golden_inputs),
        },
        "graph": proven.graph,
        "native": proven.native,
    }
    library = {**proven.library, "onnx_sha256": sha256_hex(proven.onnx)}
    # A certificate that fails is an error, so what is here has passed.
    key, passed = ("parity", {"passed": True}) if proven.by_library else ("rounding", {})
    evidence[key] = {**library, **passed}
    return evidence


def _metric_facts(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    if not metrics:
        return {}
    return {
        "metrics": {name: estimate.definition() for name, estimate in metrics.items()},
        "metrics_note": NOTE,
    }
