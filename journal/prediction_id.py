"""Prediction ids: 64 bytes that name one prediction, so that its outcome can be reported later.

Layout, little-endian (tests/vectors/prediction_id.json):

    offset  0  u8   format: 3, or 4 if the id is sealed
            1  u8   bits 0 to 4: role (turnout.v1.Role); bit 5: the score is a bfloat16; bit 6: the
                    score is at or above the version's threshold; bit 7: holdout
            2  u16  worker slot
            4  u32  sequence number within the worker; wraps
            8  u64  xxh3_64 of the model's name
           16  8 B  first 8 bytes of the version's id
           24  u48  deployment revision
           30  u16  score: the first output of the first row
           32  u48  Unix milliseconds
           38  u16  rows of the call
           40  u64  evidence key (registry.types.evidence_key)
           48  u64  boot id of the worker
           56  8 B  BLAKE2s of bytes 0..55, keyed with the cluster's 32-byte key, 8-byte digest

A probability p is written as floor(65,535 p + 1/2), so it is exact to 7.7e-6. Every other output
is written as bfloat16, which keeps 8 bits of precision. The decision at the threshold is exact in
bit 6.

The score and bits 5 and 6 are masked, so that nobody without the key learns a score from an id. Ids
share a stream in groups of eight: BLAKE2s, under a key of its own, of (boot id, Unix ms >> 20,
sequence >> 3) as three u64. Id number n has the u32 at 4 (n & 7) of it, whose bits 0 to 15 are
XORed with the score, and bits 16 and 17 with bits 5 and 6. No two ids of a worker share a mask: the
sequence would have to wrap within 2^20 ms, at 4 million calls a second.

A sealed id does not tell its caller which version answered. Bytes 1 to 55 are XORed with a stream
that is made of the MAC and a key of its own: BLAKE2s of the MAC and a zero byte, then of the MAC
and a one, 32 bytes each. No two bodies are equal, so two ids have the same stream only if their
8-byte MACs meet by chance.

Formats 1 and 2 (sealed) are read and not written any more. They have no score and no number of
rows: the revision is a u64, the time an i64, and the role has bits 0 to 6.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s
from hmac import compare_digest
from struct import Struct

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from journal.score_code import ScoreRule, code_of_score, codes_of_scores, score_of_code

FORMAT = 3
SEALED_FORMAT = 4
SCORELESS_FORMAT = 1
SEALED_SCORELESS_FORMAT = 2
LENGTH = 64
MAC_LENGTH = 8
HOLDOUT_BIT = 0x80
POSITIVE_BIT = 0x40
BFLOAT16_BIT = 0x20
SEALING_DOMAIN = b"turnout sealed prediction ids"
MASKING_DOMAIN = b"turnout scores in prediction ids"

BODY = Struct("<BBHIQ8sQQQQ")
"""Bytes 0 to 55 of an id. The seventh field is the revision with the score above it, and the eighth
is the time with the rows above it; `pack_body` leaves score and rows 0."""

_UPPER = 48
"""The bit at which the score and the number of rows begin in their fields."""
_LOWER_MASK = (1 << _UPPER) - 1
_SCORELESS_BODY = Struct("<BBHIQ8sQqQQ")
"""Formats 1 and 2 have these fields instead."""
_MASK_BLOCK = Struct("<QQQ")
_MASKS = Struct("<8I")
_MASKS_BITS = 3
"""Ids in a group that shares a stream, as a power of two."""
_MASK_TIME_BITS = 20
_FLAGS_SHIFT = 5
"""The lower of the two masked bits of the role's byte."""
ROWS_MAX = 0xFFFF
"""The largest number of rows of a call."""

_VARYING_FIELDS = np.dtype(
    {
        "names": ["role", "sequence", "score", "rows", "key_hash"],
        "formats": ["u1", "<u4", "<u2", "<u2", "<u8"],
        "offsets": [1, 4, 30, 38, 40],
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
    rows: int | None
    """Rows of the call. None: an id from before ids had it."""
    score: float | None
    """The first output of the first row, in 16 bits. None: an id from before ids had it."""
    positive: bool | None
    """Whether that output was at or above the version's threshold, exactly. None: as `score`."""


def hash_model_name(model: str) -> int:
    """Return the hash of a model's name, as ids have it."""
    return xxh3_64_intdigest(model.encode())


@lru_cache(maxsize=4)
def sealing_key(key: bytes) -> bytes:
    """Return the 32 bytes that seal ids, derived from the cluster's 32-byte *key*."""
    return blake2s(SEALING_DOMAIN, key=key).digest()


@lru_cache(maxsize=4)
def masking_key(key: bytes) -> bytes:
    """Return the 32 bytes that mask the scores in ids, derived from the cluster's 32-byte *key*."""
    return blake2s(MASKING_DOMAIN, key=key).digest()


def made_by(prediction_id: bytes) -> tuple[int, int] | None:
    """Return when an id was made, in Unix milliseconds, and the boot id of its worker.

    None: it is sealed. Nothing is verified.
    """
    fields = BODY.unpack(prediction_id[: BODY.size])
    sealed = fields[0] % 2 == SEALED_FORMAT % 2
    return None if sealed else (fields[7] & _LOWER_MASK, fields[9])


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
    rows: int,
    score: float,
    rule: ScoreRule,
) -> bytes:
    """Return one id, 64 bytes.

    key      the cluster's 32 bytes.
    sealed   whether the fields can be read with the key only.
    role     turnout.v1.Role, with HOLDOUT_BIT set for the control group.
    version  the first 8 bytes of the version's id.
    rows     rows of the call, 1 to ROWS_MAX.
    score    the first output of the first row, a float32.
    rule     how the version's scores are written.
    """
    # What the ids of one answer share.
    body = pack_body(
        sealed=sealed,
        role=role,
        slot=slot,
        model_hash=model_hash,
        version=version,
        revision=revision,
        at_ms=at_ms,
        boot_id=boot_id,
    )
    # What this one has alone.
    seal_with = sealing_key(key) if sealed else None
    return complete_prediction_id(
        key, body, sequence, key_hash, rows, rule, masking_key(key), seal_with, score
    )


def complete_prediction_id(
    key: bytes,
    body: bytes,
    sequence: int,
    key_hash: int,
    rows: int,
    rule: ScoreRule,
    mask_with: bytes,
    seal_with: bytes | None,
    score: float,
) -> bytes:
    """Return the id of one prediction, like `write_prediction_ids` those of N.

    About 3 us: packing and two BLAKE2s blocks, and a third for each eighth id. A sealed id takes
    4 us more.
    """
    layout, role, slot, _, model_hash, version, revision, at_ms, _, boot_id = BODY.unpack(body)
    # The score and its two bits, and their mask.
    code, bfloat16 = code_of_score(score, probability=rule.probability)
    flags = int(bfloat16) | int(score >= rule.threshold) << 1
    masks = _masks(mask_with, boot_id, at_ms >> _MASK_TIME_BITS, sequence >> _MASKS_BITS)
    mask = masks[sequence & ((1 << _MASKS_BITS) - 1)]
    # The body has the score above the revision, and the rows above the time.
    body = BODY.pack(
        layout,
        role | (flags ^ (mask >> 16 & 3)) << _FLAGS_SHIFT,
        slot,
        sequence,
        model_hash,
        version,
        revision | (code ^ (mask & 0xFFFF)) << _UPPER,
        at_ms | rows << _UPPER,
        key_hash,
        boot_id,
    )
    # The MAC is of the masked score, and of the readable fields.
    mac = _mac(body, key)
    return (body if seal_with is None else _xor_stream(body, mac, seal_with)) + mac


def pack_body(
    *,
    sealed: bool,
    role: int,
    slot: int,
    model_hash: int,
    version: bytes,
    revision: int,
    at_ms: int,
    boot_id: int,
) -> bytes:
    """Return the 56 bytes that the ids of one answer share, for the functions that make ids."""
    return BODY.pack(
        SEALED_FORMAT if sealed else FORMAT,
        role,
        slot,
        0,
        model_hash,
        version,
        revision & _LOWER_MASK,
        at_ms & _LOWER_MASK,
        0,
        boot_id,
    )


def write_prediction_ids(
    key: bytes,
    body: bytes,
    first: int,
    key_hashes: NDArray[np.uint64],
    holdout_flags: bytes | None,
    scores: NDArray[np.float32],
    row_offsets: NDArray[np.uint32],
    rule: ScoreRule,
    mask_with: bytes,
    seal_with: bytes | None,
) -> bytes:
    """Return the joined ids of N predictions with R rows.

    body           `pack_body` of the fields that all ids share.
    first          sequence number of the first id; the numbers wrap.
    key_hashes     (N,) uint64 evidence keys.
    holdout_flags  N bytes, 1 for the control group; None: no call is in the control group.
    scores         (R, K) float32 scores.
    row_offsets    (N + 1,) uint32 where each call's rows begin. Each call has a row.
    rule           how the version's scores are written.
    mask_with      the `masking_key`.
    seal_with      the `sealing_key` if *body* is of sealed ids; else None.
    """
    calls = len(key_hashes)
    sequence = (first + np.arange(calls)) & 0xFFFF_FFFF
    # The score of each call's first row, masked.
    first_scores = scores[row_offsets[:-1], 0]
    codes, bfloat16 = codes_of_scores(first_scores, probability=rule.probability)
    positive = first_scores >= rule.threshold
    at = int.from_bytes(body[32:38], "little") >> _MASK_TIME_BITS
    boot_id = int.from_bytes(body[48:56], "little")
    masks = np.array(
        [
            _masks(mask_with, boot_id, at, number >> _MASKS_BITS)[number & ((1 << _MASKS_BITS) - 1)]
            for number in sequence.tolist()
        ],
        dtype=np.uint32,
    )
    flags = (bfloat16 | positive * np.uint8(2)) ^ (masks >> 16 & 3).astype(np.uint8)
    # The bodies.
    array = np.frombuffer(bytearray(body * calls), dtype=np.uint8)
    bodies = array.view(_VARYING_FIELDS)
    bodies["role"] |= flags << np.uint8(_FLAGS_SHIFT)
    bodies["sequence"] = sequence
    bodies["score"] = codes ^ masks.astype(np.uint16)
    bodies["rows"] = np.diff(row_offsets)
    bodies["key_hash"] = key_hashes
    if holdout_flags is not None:
        bodies["role"] |= np.frombuffer(holdout_flags, dtype=np.uint8) * np.uint8(HOLDOUT_BIT)
    # The MACs, and the seals.
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
    # Unseal the body, and check its MAC.
    body, mac = prediction_id[: BODY.size], prediction_id[BODY.size :]
    is_id = len(prediction_id) == LENGTH
    if is_id and body[0] in (SEALED_FORMAT, SEALED_SCORELESS_FORMAT):
        body = _xor_stream(body, mac, sealing_key(key))
    if not is_id or not compare_digest(_mac(body, key), mac) or not 1 <= body[0] <= 4:
        raise PredictionIdError("prediction_id was not written by this cluster; send it unchanged")
    scoreless = body[0] in (SCORELESS_FORMAT, SEALED_SCORELESS_FORMAT)
    layout = _SCORELESS_BODY if scoreless else BODY
    _, role, slot, sequence, model, version, revision, at_ms, key_hash, boot_id = layout.unpack(
        body
    )
    rows = score = positive = None
    if not scoreless:
        # Take apart the fields that have two values each, and unmask the score.
        code, revision = revision >> _UPPER, revision & _LOWER_MASK
        rows, at_ms = at_ms >> _UPPER, at_ms & _LOWER_MASK
        masks = _masks(masking_key(key), boot_id, at_ms >> _MASK_TIME_BITS, sequence >> _MASKS_BITS)
        mask = masks[sequence & ((1 << _MASKS_BITS) - 1)]
        role ^= (mask >> 16 & 3) << _FLAGS_SHIFT
        score = score_of_code(code ^ mask & 0xFFFF, bfloat16=bool(role & BFLOAT16_BIT))
        positive = bool(role & POSITIVE_BIT)
        role &= ~(BFLOAT16_BIT | POSITIVE_BIT)
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
        rows=rows,
        score=score,
        positive=positive,
    )


def _mac(body: bytes, key: bytes) -> bytes:
    return blake2s(body, key=key, digest_size=MAC_LENGTH).digest()


@lru_cache(maxsize=64)
def _masks(mask_with: bytes, boot_id: int, time: int, group: int) -> tuple[int, ...]:
    """Return the masks of the eight ids of one group."""
    block = _MASK_BLOCK.pack(boot_id, time, group)
    return _MASKS.unpack(blake2s(block, key=mask_with).digest())


def _xor_stream(body: bytes, mac: bytes, seal_with: bytes) -> bytes:
    """Seal or unseal a body: XOR all bytes after the format with the stream of its MAC."""
    stream = b"".join([blake2s(mac + half, key=seal_with).digest() for half in (b"\0", b"\1")])
    size = BODY.size - 1
    mixed = int.from_bytes(body[1:]) ^ int.from_bytes(stream[:size])
    return body[:1] + mixed.to_bytes(size)
