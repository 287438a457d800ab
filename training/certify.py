"""Certifies a version that `train` did not make: its scores beside production's, on served rows.

Without an expected shift in its card, every difference from production holds a rollout. Here the
shift is measured on the rows that gateways have served, and the version gets a card that has it.
"""

import json
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json
from features.replay.served_rows import served_rows
from host.sandbox.run import Isolation
from protos.journal_pb2 import ServedBatch
from registry.bundle import Bundle
from training.errors import CertifyError
from training.evaluation.expected_shift import ExpectedShift, expected_shift
from training.retrain.sandboxed_scores import score_side_by_side

ROWS_MIN = 500
"""Fewer rows would leave most bins of the shift to chance."""
CHUNK_ROWS = 50_000
SEAL = ("manifest.json", "signature.json")
"""Files that each version has of its own."""


def rows_to_certify_on(
    batches: Iterable[ServedBatch], production: Bundle, *, rows_max: int
) -> NDArray[np.float32]:
    """Return (N, F) served rows with production's contract: the last one of each entity.

    rows_max  most entities. Of each, the newest of about 100 rows counts.
    """
    newest: dict[object, NDArray[np.float32]] = {}
    contract, read_max = production.contract, 100 * rows_max
    for chunk in served_rows(batches, contract, rows_max=read_max, chunk_rows=CHUNK_ROWS):
        # Rows without an entity are each of their own.
        ids = [chunk.spine.ids[entity] for entity in contract.entities]
        keys = list(zip(*ids, strict=True)) if ids else [object() for _ in range(len(chunk))]
        for key, row in zip(keys, chunk.vectors, strict=True):
            if key in newest or len(newest) < rows_max:
                newest[key] = row
    return np.array(list(newest.values()), np.float32).reshape(-1, contract.width)


def measure_shift(
    candidate: Bundle,
    production: Bundle,
    rows: NDArray[np.float32],
    *,
    isolation: Isolation | None = None,
) -> ExpectedShift:
    """Return how the scores of *candidate* differ from those of *production* on (N, F) *rows*.

    Both score in a sandboxed child, because a version is what its author wrote.

    isolation  None chooses one.

    Raises CertifyError if the versions read other inputs, the rows are too few, or a score of the
    candidate is not finite where production's is.
    """
    # The rows are the inputs of both only if both have one contract.
    if candidate.contract.model_contract != production.contract.model_contract:
        raise CertifyError(
            "it has another contract than production, so the rows that production was given are "
            "not its inputs; train it with `turnout train`, which compares both on labelled rows"
        )
    if len(rows) < ROWS_MIN:
        raise CertifyError(
            f"the journals have {len(rows)} rows of different entities with this contract; a "
            f"certificate needs {ROWS_MIN}. Let production answer more calls"
        )
    # Score the rows with both, and leave out those that production cannot score.
    outputs = len(production.contract.outputs)
    scored = score_side_by_side(production.onnx, candidate.onnx, rows, outputs, isolation=isolation)
    before, after = scored.first, scored.second
    usable = np.isfinite(before).all(axis=1)
    # A candidate must score what production scores.
    failed = int(np.count_nonzero(usable & ~np.isfinite(after).all(axis=1)))
    if failed:
        raise CertifyError(
            f"it scores {failed} of {len(rows)} rows NaN or infinite where production does not; "
            "mend the version"
        )
    return expected_shift(
        before[usable],
        after[usable],
        champion=production.digest,
        scale=production.reference.scale,
        candidate_threshold=candidate.reference.decision_threshold,
    )


def certified_files(files: Mapping[str, bytes], shift: ExpectedShift) -> dict[str, bytes]:
    """Return the files of a version with *shift* in their card, ready to be registered."""
    card = {**json.loads(files["card.json"]), "expected_shift": shift.definition()}
    card["certified_on"] = "rows that gateways have served"
    unsealed = {name: files[name] for name in files if name not in SEAL}
    return {**unsealed, "card.json": canonical_json(card)}
