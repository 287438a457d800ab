"""Prediction ids: 64 bytes that name one prediction, so that its outcome can be reported later.

Layout, little-endian (tests/vectors/prediction_id.json):

    offset  0  u8   format, 1
            1  u8   role (turnout.v1.Role); bit 7: holdout
            2  u16  worker slot
            4  u32  sequence number within the worker; wraps
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
from struct import Struct

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

FORMAT = 1
LENGTH = 64
MAC_LENGTH = 8
HOLDOUT_BIT = 0x80

BODY = Struct("<BBHIQ8sQqQQ")
"""Bytes 0 to 55 of an id: every field except the MAC."""

_VARYING_FIELDS = np.dtype(
    {
        "names": ["role", "sequence", "key_hash"],
        "formats": ["u1", "<u4", "<u8"],
        "offsets": [1, 4, 40],
        "itemsize": BODY.size,
    }
)
"""The fields that differ among the ids of one batch."""


class PredictionIdError(ValueError):
    """The bytes are no id that a gateway of this cluster wrote."""


@dataclass(frozen=True, slots=True)
class PredictionId:
    """The fields of an id whose MAC was verified."""

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


def hash_model_name(model: str) -> int:
    """Return the hash of a model's name, as ids have it."""
    return xxh3_64_intdigest(model.encode())


def write_prediction_id(
    key: bytes,
    *,
    role: int,
    slot: int,
    sequence: int,
    model_hash: int,
    version: bytes,
    revision: int,
    at_ms: int,
    key_hash: int,
    boot_id: int,
) -> bytes:
    """Return one id, 64 bytes.

    key      the cluster's 32 bytes.
    role     turnout.v1.Role, with HOLDOUT_BIT set for the control group.
    version  the first 8 bytes of the version's id.

    About 2 us: one pack and two BLAKE2s blocks.
    """
    body = BODY.pack(
        FORMAT, role, slot, sequence, model_hash, version, revision, at_ms, key_hash, boot_id
    )
    return body + blake2s(body, key=key, digest_size=MAC_LENGTH).digest()


def write_prediction_ids(
    key: bytes, body: bytes, first: int, key_hashes: NDArray[np.uint64], holdout_flags: bytes | None
) -> bytes:
    """Return the joined ids of N predictions.

    body           the common fields as BODY packs them. Sequence and evidence key are replaced.
    first          sequence number of the first id; the numbers wrap.
    key_hashes     (N,) uint64 evidence keys.
    holdout_flags  N bytes, 1 for the control group; None: no call is in the control group.
    """
    array = np.frombuffer(bytearray(body * len(key_hashes)), dtype=np.uint8)
    bodies = array.view(_VARYING_FIELDS)
    bodies["sequence"] = (first + np.arange(len(key_hashes))) & 0xFFFF_FFFF
    bodies["key_hash"] = key_hashes
    if holdout_flags is not None:
        bodies["role"] |= np.frombuffer(holdout_flags, dtype=np.uint8) * np.uint8(HOLDOUT_BIT)
    joined = array.tobytes()
    parts = [joined[start : start + BODY.size] for start in range(0, len(joined), BODY.size)]
    return b"".join(
        [part + blake2s(part, key=key, digest_size=MAC_LENGTH).digest() for part in parts]
    )


def read_prediction_id(prediction_id: bytes, key: bytes) -> PredictionId:
    """Verify *prediction_id* and return its fields.

    Raises PredictionIdError for a wrong length, format or MAC. The message is the same for each, so
    that a forger learns nothing.
    """
    genuine = len(prediction_id) == LENGTH and compare_digest(
        blake2s(prediction_id[: BODY.size], key=key, digest_size=MAC_LENGTH).digest(),
        prediction_id[BODY.size :],
    )
    if not genuine or prediction_id[0] != FORMAT:
        raise PredictionIdError("prediction_id was not written by this cluster; send it unchanged")
    _, role, slot, sequence, model, version, revision, at_ms, key_hash, boot_id = BODY.unpack(
        prediction_id[: BODY.size]
    )
    return PredictionId(
        role=role & ~HOLDOUT_BIT,
        holdout=bool(role & HOLDOUT_BIT),
        slot=slot,
        sequence=sequence,
        model_hash=model,
        version=version,
        revision=revision,
        at_ms=at_ms,
        key_hash=key_hash,
        boot_id=boot_id,
    )
