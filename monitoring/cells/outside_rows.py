"""Scores of models that other systems serve, in the form of rows that a gateway has answered.

So they are counted, kept and removed like those. Their versions are called "elsewhere", or
"elsewhere:7" where the other system names the version 7. They have one output and no inputs.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from monitoring.cells.version_bins import OutputBins, VersionBins
from protos.journal_pb2 import ServedBatch
from stats.score_grid import score_grid_edges

ELSEWHERE = "elsewhere"
OUTPUT = "score"
ROLE_PRODUCTION = 1
"""As gateways write it: the score was the answer."""
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+:-]{0,63}")
VERSION_RULE = "it has 1 to 64 letters, digits and _ . + : - and begins with a letter or digit"
MARK = bytes([0xFF, 0])
"""Begins the id of a row from elsewhere. No format of prediction ids has this number, and an odd
one is not sealed (monitoring.api.decision_policy)."""
MARK_BYTES = 32
"""The first bytes of an id, which say what was scored: MARK and a digest."""


def outside_version(name: str) -> str:
    """Return the label of a version that another system names *name*, or does not name."""
    return f"{ELSEWHERE}:{name}" if name else ELSEWHERE


def is_outside_version(label: str) -> bool:
    """Whether another system serves the version with this label."""
    return label == ELSEWHERE or label.startswith(f"{ELSEWHERE}:")


def outside_digest8(model: str, label: str) -> int:
    """Return the number that stands for the digest of a version, which has no files here."""
    content = f"{model}\0{label}".encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def outside_bins(model: str, label: str, edges: Sequence[float]) -> VersionBins:
    """Return the bins of a version; without *edges* its scores are probabilities."""
    output = OutputBins(
        OUTPUT,
        np.array(edges, dtype=np.float32) if edges else score_grid_edges(),
        probability=not edges,
    )
    return VersionBins(model, label, outside_digest8(model, label), (output,))


def outside_key_hash(key: str) -> int:
    """Return the key hash of a row; gateways make others, because they have a salt."""
    return xxh3_64_intdigest(f"{ELSEWHERE}\0{key}".encode())


def mark_of_prediction(model: str, prediction: str) -> bytes:
    """Return the first 32 bytes of the id of a prediction that the other system names."""
    return MARK + _digest(30, model, prediction)


def outside_batch(
    bins: VersionBins,
    keys: Sequence[str],
    predictions: Sequence[str],
    at_unix_ms: NDArray[np.int64],
    scores: NDArray[np.float32],
    part: str = "",
) -> ServedBatch:
    """Return R rows as calls of one row each.

    predictions  R names, or none: then *part* of the import and the number in it name the row.
    """
    # An id says what was scored, and when; its day is where a gateway's id has it.
    names = list(predictions) or [f"{part}\0{number}" for number in range(len(keys))]
    ids = [
        mark_of_prediction(bins.model, name)
        + at.to_bytes(6, "little")
        + _digest(26, bins.version, key)
        for name, key, at in zip(names, keys, at_unix_ms.tolist(), strict=True)
    ]
    # One row a call, without flags and inputs.
    rows = len(ids)
    return ServedBatch(
        model=bins.model,
        version=bins.version,
        version_digest=bins.digest8,
        at_unix_ns=(at_unix_ms * 1_000_000).astype("<i8").tobytes(),
        role=bytes([ROLE_PRODUCTION]) * rows,
        row_count=np.ones(rows, dtype="<u4").tobytes(),
        prediction_ids=b"".join(ids),
        key_hash=np.array([outside_key_hash(key) for key in keys], dtype="<u8").tobytes(),
        row_flags=bytes(4 * rows),
        width=0,
        outputs=1,
        scores=scores.astype("<f4").tobytes(),
        entity_ids=keys,
    )


def _digest(size: int, *texts: str) -> bytes:
    return blake2b("\0".join(texts).encode(), digest_size=size).digest()
