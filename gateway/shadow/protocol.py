"""What a worker and a shadow's process say to each other: copies there, scores back. No I/O.

A copy is u32 calls, u32 rows, then (calls + 1) u32 row offsets and (rows, F) float32; an answer is
u32 calls, u32 rows, then calls u8 faults and (rows, K) float32, little-endian. Answers come in the
order of the copies. An answer to nothing, 0 calls and 0 rows, comes first: the version is open.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scored

FRAME_HEADER = struct.Struct("<II")


class ShadowProtocolError(ValueError):
    """What arrived is no answer of ours: the other process is out of its mind."""


def encode_copy(matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> bytes:
    """Return one copy, rows as (R, F) and offsets as (C + 1,)."""
    head = FRAME_HEADER.pack(len(row_offsets) - 1, len(matrix))
    offsets = np.ascontiguousarray(row_offsets, dtype="<u4")
    return b"".join((head, offsets.tobytes(), np.ascontiguousarray(matrix, dtype="<f4").tobytes()))


def copy_body_size(head: bytes, width: int) -> int:
    """Return how many bytes follow a copy's head."""
    calls, rows = _decode_header(head)
    return 4 * (calls + 1) + 4 * rows * width


def decode_copy(
    head: bytes, body: bytes, width: int
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Return (matrix, row_offsets) of one copy."""
    calls, rows = _decode_header(head)
    offsets = np.frombuffer(body, dtype="<u4", count=calls + 1)
    matrix = np.frombuffer(body, dtype="<f4", offset=4 * (calls + 1)).reshape(rows, width)
    return matrix, offsets


def _decode_header(head: bytes) -> tuple[int, int]:
    calls, rows = FRAME_HEADER.unpack(head)
    return int(calls), int(rows)


def encode_scores(scored: Scored) -> bytes:
    """Return one answer."""
    head = FRAME_HEADER.pack(len(scored.faults), len(scored.scores))
    return b"".join((head, scored.faults.tobytes(), scored.scores.astype("<f4").tobytes()))


OPENED_FRAME = FRAME_HEADER.pack(0, 0)
"""The first answer."""


class ScoresDecoder:
    """Bytes in, whole answers out."""

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs
        self._waiting = bytearray()

    def feed(self, chunk: bytes, expected: list[tuple[int, int]]) -> list[Scored]:
        """Return the answers that *chunk* completes, in order.

        expected  (calls, rows) of each copy not answered yet, oldest first.

        Raises ShadowProtocolError for anything else than the answer that is due.
        """
        self._waiting += chunk
        answers: list[Scored] = []
        start = 0
        while len(self._waiting) - start >= FRAME_HEADER.size:
            size = FRAME_HEADER.unpack_from(self._waiting, start)
            due = expected[len(answers)] if len(answers) < len(expected) else None
            if size != due:
                raise ShadowProtocolError(f"an answer for {size} (calls, rows); due was {due}")
            calls, rows = size
            end = start + FRAME_HEADER.size + calls + 4 * rows * self._outputs
            if len(self._waiting) < end:
                break
            body = bytes(self._waiting[start + FRAME_HEADER.size : end])
            faults = np.frombuffer(body, dtype=np.uint8, count=calls)
            scores = np.frombuffer(body, dtype="<f4", offset=calls).reshape(rows, self._outputs)
            answers.append(Scored(scores, faults))
            start = end
        del self._waiting[:start]
        return answers
