"""Reads the golden rows and their scores, and how exact these are, from an untrusted version.

The background rows of explanations have the same form (registry.explanation.background).
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.types import VersionRefusedError

UNPACKED_BYTES_MAX = 64 * 2**20
"""Bound on the unpacked size, because a zip file can unpack to a thousand times its size."""

TOLERANCE_MAX = 1e-4
"""The most that a version may state, relative and, for scores up to 1, absolute: float32 has 1e-7,
and a long sum some hundred times that. With more, a score could tell of the rows beside it."""
SIZE_QUANTILE = 0.9
"""Nine of ten golden scores are at most as large as the size of an output."""


@dataclass(frozen=True, slots=True)
class ScoreTolerance:
    """How far two scores y of one row may differ: by *absolute* + *relative* x |y|."""

    absolute: float
    relative: float


def read_tolerance(card: Mapping[str, Any], outputs: NDArray[np.float32]) -> ScoreTolerance | None:
    """Return the tolerance that card.json states; None if it states none, as versions once did.

    outputs  (G, K) golden scores. A sum of thousands rounds by thousands of times as much as a
             probability, also where it cancels to nothing; so TOLERANCE_MAX times their size may be
             stated as absolute.

    Raises VersionRefusedError for a tolerance that is malformed or too large.
    """
    if "score_tolerance" not in card:
        return None
    stated = card["score_tolerance"]
    absolute_max = TOLERANCE_MAX * score_size(outputs)
    well_formed = isinstance(stated, dict) and stated.keys() == {"absolute", "relative"}
    if (
        not well_formed
        or not _is_tolerance(stated["absolute"], absolute_max)
        or not _is_tolerance(stated["relative"], TOLERANCE_MAX)
    ):
        raise VersionRefusedError(
            f"card.json states the score_tolerance {str(stated)[:80]}; it is "
            '{"absolute": A, "relative": R}, A a number from 0 to '
            f"{absolute_max:g} and R from 0 to {TOLERANCE_MAX:g}. Leave it out for 1e-05"
        )
    return ScoreTolerance(float(stated["absolute"]), float(stated["relative"]))


def score_size(scores: NDArray[np.float32]) -> float:
    """Return how large the scores (N, K) of a model usually are, at least 1.

    Of several outputs it is the size of the smallest.
    """
    sizes = [
        float(np.quantile(np.abs(column[np.isfinite(column)]).astype(np.float64), SIZE_QUANTILE))
        for column in scores.T
        if np.isfinite(column).any()
    ]
    return max(1.0, min(sizes, default=1.0))


def _is_tolerance(value: object, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= most


def read_golden(
    content: bytes, width: int, outputs: int, name: str = "golden.npz"
) -> tuple[NDArray[np.float32], ...]:
    """Return the inputs (G, width) and outputs (G, outputs) of a file, float32, read-only.

    name  of the file, for messages.

    Nothing is unpickled. Raises VersionRefusedError for any other content.
    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            _check_archive(archive, name)
            inputs = _read_float32(archive.read("inputs.npy"), name)
            expected = _read_float32(archive.read("outputs.npy"), name)
    except VersionRefusedError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen types of errors on bad bytes
        raise VersionRefusedError(f"{name} cannot be read: {error!r}") from error
    if len(inputs) == 0 or inputs.shape[1:] != (width,) or expected.shape != (len(inputs), outputs):
        raise VersionRefusedError(
            f"{name} holds inputs {inputs.shape} and outputs {expected.shape}; contract.json "
            f"asks for (G, {width}) and (G, {outputs}) with G at least 1"
        )
    return inputs, expected


def _check_archive(archive: zipfile.ZipFile, name: str) -> None:
    if sorted(archive.namelist()) != ["inputs.npy", "outputs.npy"]:
        raise VersionRefusedError(
            f"{name} holds {archive.namelist()[:4]}; it must hold inputs.npy and outputs.npy"
        )
    unpacked = sum(item.file_size for item in archive.infolist())
    if unpacked > UNPACKED_BYTES_MAX:
        raise VersionRefusedError(
            f"{name} unpacks to {unpacked} bytes; the most is {UNPACKED_BYTES_MAX}"
        )


def _read_float32(npy: bytes, name: str) -> NDArray[np.float32]:
    """Parse a .npy file of float32 whose header describes exactly the bytes that follow."""
    stream = BytesIO(npy)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise VersionRefusedError(f"{name} uses .npy format {version}; np.savez writes (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    content = npy[stream.tell() :]
    if dtype != np.dtype("<f4") or int(np.prod(shape, dtype=object)) * 4 != len(content):
        raise VersionRefusedError(
            f"{name} holds {dtype} {shape} in {len(content)} bytes; it must be complete float32"
        )
    return np.frombuffer(content, dtype="<f4").reshape(shape, order="F" if fortran else "C")
