"""The rows with which a score is compared: sealed in the version, or medians of its reference."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.canonical import sha256_hex
from registry.bundle import Bundle
from registry.explanation.errors import NotExplainedError
from registry.golden import read_golden
from registry.types import VersionRefusedError

BACKGROUND = "background.npz"
BACKGROUND_ROWS_MAX = 200
"""Rows of the training data that a version seals for its explanations."""
FROM_TRAINING, FROM_SAMPLE, FROM_MEDIANS = "training rows", "sample rows", "medians"


@dataclass(frozen=True, eq=False, slots=True)
class Background:
    """The rows that are averaged over.

    rows    (R, F) float32 model inputs.
    origin  FROM_TRAINING; FROM_SAMPLE of an adopted version; or FROM_MEDIANS, one row with the
            median of each input alone, which no row of the training data need have.
    digest  SHA-256 (hex) of the file, or of the reference that the medians are of.
    """

    rows: NDArray[np.float32]
    origin: str
    digest: str

    @property
    def described(self) -> str:
        """What a score is compared with, in words."""
        if self.origin == FROM_MEDIANS:
            return "one row with the median of each input (the version has no background.npz)"
        source = "sample" if self.origin == FROM_SAMPLE else "training data"
        return f"{len(self.rows)} rows of the {source}"


def read_background(bundle: Bundle, files: Mapping[str, bytes]) -> Background:
    """Return the background of a verified version.

    files  the version's files, whose digests are checked.

    A version from before there was a background is compared with the medians of its reference.
    Raises VersionRefusedError when background.npz is malformed or too large, and NotExplainedError
    when the reference has no counts.
    """
    if BACKGROUND not in files:
        if not all("counts" in item for item in bundle.reference.definition["features"]):
            raise NotExplainedError(
                f"the version has no {BACKGROUND}, and its reference.json has no counts of which "
                "medians could be taken; train it again, or register a version with that file"
            )
        digest = sha256_hex(files["reference.json"])
        return Background(reference_medians(bundle), FROM_MEDIANS, digest)
    contract = bundle.contract
    content = files[BACKGROUND]
    rows, _ = read_golden(content, contract.width, len(contract.outputs), BACKGROUND)
    if len(rows) > BACKGROUND_ROWS_MAX:
        raise VersionRefusedError(
            f"{BACKGROUND} holds {len(rows)} rows; the most is {BACKGROUND_ROWS_MAX}"
        )
    origin = FROM_SAMPLE if "adopted" in bundle.card else FROM_TRAINING
    return Background(rows, origin, sha256_hex(content))


def reference_medians(bundle: Bundle) -> NDArray[np.float32]:
    """Return the median of each input, (1, F): the edge up to which half of the rows lie.

    Training writes deciles as edges, so the median is one of them. NaN where half are missing.
    """
    medians = []
    for item in bundle.reference.definition["features"]:
        edges, counts = item["edges"], np.cumsum(item.get("counts", []))
        missing = int(item.get("missing", 0))
        if not len(counts) or 2 * missing > counts[-1] + missing:
            medians.append(np.nan)
            continue
        bin_of = int(np.searchsorted(counts, counts[-1] / 2))
        medians.append(edges[min(bin_of, len(edges) - 1)] if edges else np.nan)
    return np.array([medians], dtype=np.float32)
