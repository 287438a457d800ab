"""The protocol between a worker and a shadow process: copies go there, scores come back. No I/O.

All numbers are little-endian.

    copy    u32 calls, u32 rows, (calls + 1,) u32 row offsets, (rows, F) float32 matrix
    answer  u32 calls, u32 rows, (calls,) u8 faults, (rows, K) float32 scores

Answers come in the order of the copies. Before them the process sends one answer of 0 calls and 0
rows, which says that it has opened the version.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scored

FRAME_HEADER = struct.Struct("<II")


class ShadowProtocolError(ValueError):
    """The bytes received are not the answer that is due; the shadow process cannot be trusted."""


def encode_copy(matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]) -> bytes:
    """Encode one copy: matrix is (R, F), row_offsets is (C + 1,)."""
    header = FRAME_HEADER.pack(len(row_offsets) - 1, len(matrix))
    offsets = np.ascontiguousarray(row_offsets, dtype="<u4")
    return b"".join(
        (header, offsets.tobytes(), np.ascontiguousarray(matrix, dtype="<f4").tobytes())
    )


def copy_body_size(header: bytes, width: int) -> int:
    """Return how many bytes follow the header of a copy; width is F."""
    calls, rows = _decode_header(header)
    return 4 * (calls + 1) + 4 * rows * width


def decode_copy(
    header: bytes, body: bytes, width: int
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Return (matrix, row_offsets) of one copy: (R, F) and (C + 1,)."""
    calls, rows = _decode_header(header)
    offsets = np.frombuffer(body, dtype="<u4", count=calls + 1)
    matrix = np.frombuffer(body, dtype="<f4", offset=4 * (calls + 1)).reshape(rows, width)
    return matrix, offsets


def _decode_header(header: bytes) -> tuple[int, int]:
    calls, rows = FRAME_HEADER.unpack(header)
    return int(calls), int(rows)


def encode_scores(scored: Scored) -> bytes:
    """Encode one answer."""
    header = FRAME_HEADER.pack(len(scored.faults), len(scored.scores))
    return b"".join((header, scored.faults.tobytes(), scored.scores.astype("<f4").tobytes()))


OPENED_FRAME = FRAME_HEADER.pack(0, 0)
"""The answer that a process sends first, once it has opened its version."""


class ScoresDecoder:
    """Cuts a stream of bytes into answers.

    outputs  K, the scores of a row.
    """

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs
        self._buffer = bytearray()

    def feed(self, chunk: bytes, expected: list[tuple[int, int]]) -> list[Scored]:
        """Return the answers that *chunk* completes, in order.

        expected  (calls, rows) of each copy that is not answered yet, oldest first.

        Raises ShadowProtocolError for an answer of another size than the one that is due.
        """
        self._buffer += chunk
        answers: list[Scored] = []
        start = 0
        while len(self._buffer) - start >= FRAME_HEADER.size:
            size = FRAME_HEADER.unpack_from(self._buffer, start)
            due = expected[len(answers)] if len(answers) < len(expected) else None
            if size != due:
                raise ShadowProtocolError(f"an answer for {size} (calls, rows); due was {due}")
            calls, rows = size
            end = start + FRAME_HEADER.size + calls + 4 * rows * self._outputs
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[start + FRAME_HEADER.size : end])
            faults = np.frombuffer(body, dtype=np.uint8, count=calls)
            scores = np.frombuffer(body, dtype="<f4", offset=calls).reshape(rows, self._outputs)
            # They lie behind one byte a call, and the native server takes aligned arrays only.
            answers.append(Scored(np.require(scores, requirements="A"), faults))
            start = end
        del self._buffer[:start]
        return answers
