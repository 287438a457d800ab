"""The 64 bytes that name one prediction, wherever its outcome may turn up.

Layout, little-endian (tests/vectors/prediction_id.json):

    offset  0  u8   format, 1
            1  u8   role (turnout.v1.Role); bit 7: holdout
            2  u16  worker slot
            4  u32  sequence within the batch's worker; wraps
            8  u64  xxh3_64 of the model's name
           16  8 B  first 8 bytes of the version's id
           24  u64  deployment revision
           32  i64  Unix milliseconds
           40  u64  evidence key (registry.types.evidence_key)
           48  u64  boot id of the worker
           56  8 B  BLAKE2s of bytes 0..55, keyed with the cluster's 32-byte key, 8-byte digest
"""

from dataclasses import dataclass
from hashlib import blake2s
from hmac import compare_digest

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

FORMAT = 1
LENGTH = 64
HOLDOUT_BIT = 0x80

LAYOUT = np.dtype(
    [
        ("format", "u1"),
        ("role", "u1"),
        ("slot", "<u2"),
        ("sequence", "<u4"),
        ("model", "<u8"),
        ("version", "V8"),
        ("revision", "<u8"),
        ("at_ms", "<i8"),
        ("key_hash", "<u8"),
        ("boot_id", "<u8"),
        ("mac", "V8"),
    ]
)


class PredictionIdError(ValueError):
    """Not an id that a gateway of this cluster wrote: the caller's mistake, or a forgery."""


@dataclass(frozen=True, slots=True)
class PredictionId:
    """One id, read and proved."""

    role: int
    holdout: bool
    slot: int
    sequence: int
    model_hash: int
    version: bytes
    revision: int
    at_ms: int
    key_hash: int
    boot_id: int


def model_hash(model: str) -> int:
    """How a model's name stands in an id."""
    return xxh3_64_intdigest(model.encode())


def seal(ids: NDArray[np.void], key: bytes) -> bytes:
    """Write the MAC of each id and return them joined: 64 bytes a call, in order.

    ids   (C,) of LAYOUT, everything but `mac` filled in; its `mac` field is written here.
    key   the cluster's 32 bytes.

    About 1 us an id: two BLAKE2s blocks.
    """
    joined = bytearray(ids.tobytes())
    for start in range(0, len(joined), LENGTH):
        mac = blake2s(joined[start : start + 56], key=key, digest_size=8).digest()
        joined[start + 56 : start + LENGTH] = mac
    return bytes(joined)


def read(prediction_id: bytes, key: bytes) -> PredictionId:
    """Prove *prediction_id* and take it apart.

    Raises PredictionIdError for a wrong length, format or MAC, in the same words for each, so
    that a forger learns nothing.
    """
    genuine = len(prediction_id) == LENGTH and compare_digest(
        blake2s(prediction_id[:56], key=key, digest_size=8).digest(), prediction_id[56:]
    )
    if not genuine or prediction_id[0] != FORMAT:
        raise PredictionIdError("prediction_id was not written by this cluster; send it unchanged")
    fields = np.frombuffer(prediction_id, dtype=LAYOUT)[0]
    return PredictionId(
        role=int(fields["role"]) & ~HOLDOUT_BIT,
        holdout=bool(int(fields["role"]) & HOLDOUT_BIT),
        slot=int(fields["slot"]),
        sequence=int(fields["sequence"]),
        model_hash=int(fields["model"]),
        version=fields["version"].tobytes(),
        revision=int(fields["revision"]),
        at_ms=int(fields["at_ms"]),
        key_hash=int(fields["key_hash"]),
        boot_id=int(fields["boot_id"]),
    )
