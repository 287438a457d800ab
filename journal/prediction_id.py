"""Prediction ids: 64 bytes that name one prediction, so that its outcome can be reported later.

Layout, little-endian (tests/vectors/prediction_id.json):

    offset  0  u8   format: 1, or 2 if the id is sealed
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

A sealed id does not tell its caller which version answered. Bytes 1 to 55 are XORed with a stream
that is made of the MAC and a key of its own: BLAKE2s of the MAC and a zero byte, then of the MAC
and a one, 32 bytes each. No two bodies are equal, so two ids have the same stream only if their
8-byte MACs meet by chance.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s
from hmac import compare_digest
from struct import Struct

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

FORMAT = 1
SEALED_FORMAT = 2
LENGTH = 64
MAC_LENGTH = 8
HOLDOUT_BIT = 0x80
SEALING_DOMAIN = b"turnout sealed prediction ids"

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


@lru_cache(maxsize=4)
def sealing_key(key: bytes) -> bytes:
    """Return the 32 bytes that seal ids, derived from the cluster's 32-byte *key*."""
    return blake2s(SEALING_DOMAIN, key=key).digest()


def write_prediction_id(
    key: bytes,
    *,
    sealed: bool = False,
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
    sealed   whether the fields can be read with the key only.
    role     turnout.v1.Role, with HOLDOUT_BIT set for the control group.
    version  the first 8 bytes of the version's id.

    About 2 us: one pack and two BLAKE2s blocks. A sealed id takes 4 us more.
    """
    id_format = SEALED_FORMAT if sealed else FORMAT
    body = BODY.pack(
        id_format, role, slot, sequence, model_hash, version, revision, at_ms, key_hash, boot_id
    )
    mac = _mac(body, key)
    return (_xor_stream(body, mac, sealing_key(key)) if sealed else body) + mac


def write_prediction_ids(
    key: bytes,
    body: bytes,
    first: int,
    key_hashes: NDArray[np.uint64],
    holdout_flags: bytes | None,
    seal_with: bytes | None,
) -> bytes:
    """Return the joined ids of N predictions.

    body           the common fields as BODY packs them. Sequence and evidence key are replaced.
    first          sequence number of the first id; the numbers wrap.
    key_hashes     (N,) uint64 evidence keys.
    holdout_flags  N bytes, 1 for the control group; None: no call is in the control group.
    seal_with      the `sealing_key` if *body* has SEALED_FORMAT; else None.
    """
    array = np.frombuffer(bytearray(body * len(key_hashes)), dtype=np.uint8)
    bodies = array.view(_VARYING_FIELDS)
    bodies["sequence"] = (first + np.arange(len(key_hashes))) & 0xFFFF_FFFF
    bodies["key_hash"] = key_hashes
    if holdout_flags is not None:
        bodies["role"] |= np.frombuffer(holdout_flags, dtype=np.uint8) * np.uint8(HOLDOUT_BIT)
    joined = array.tobytes()
    parts = [joined[start : start + BODY.size] for start in range(0, len(joined), BODY.size)]
    ids = []
    for part in parts:
        mac = _mac(part, key)
        ids += [part if seal_with is None else _xor_stream(part, mac, seal_with), mac]
    return b"".join(ids)


def read_prediction_id(prediction_id: bytes, key: bytes) -> PredictionId:
    """Verify *prediction_id* and return its fields.

    Raises PredictionIdError for a wrong length, format or MAC. The message is the same for each, so
    that a forger learns nothing.
    """
    body, mac = prediction_id[: BODY.size], prediction_id[BODY.size :]
    if body[:1] == bytes([SEALED_FORMAT]) and len(prediction_id) == LENGTH:
        body = _xor_stream(body, mac, sealing_key(key))
    genuine = len(prediction_id) == LENGTH and compare_digest(_mac(body, key), mac)
    if not genuine or body[0] not in (FORMAT, SEALED_FORMAT):
        raise PredictionIdError("prediction_id was not written by this cluster; send it unchanged")
    _, role, slot, sequence, model, version, revision, at_ms, key_hash, boot_id = BODY.unpack(body)
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


def _mac(body: bytes, key: bytes) -> bytes:
    return blake2s(body, key=key, digest_size=MAC_LENGTH).digest()


def _xor_stream(body: bytes, mac: bytes, seal_with: bytes) -> bytes:
    """Seal or unseal a body: XOR all bytes after the format with the stream of its MAC."""
    stream = b"".join([blake2s(mac + half, key=seal_with).digest() for half in (b"\0", b"\1")])
    size = BODY.size - 1
    mixed = int.from_bytes(body[1:]) ^ int.from_bytes(stream[:size])
    return body[:1] + mixed.to_bytes(size)
