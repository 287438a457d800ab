"""What a sandboxed child writes into its pipe: frames, which its parent reads as hostile.

A frame is one letter, a little-endian u64 length and that many bytes. `S` names a step, in UTF-8.
The last frame is `A` with the answer, or `P` with the problem that ended the child, in UTF-8.
The code in the child can write anything into the pipe, so a frame proves nothing of its content.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

_HEAD = struct.Struct("<cQ")
STEP, ANSWER, PROBLEM = b"S", b"A", b"P"
TEXT_BYTES_MAX = 4_000
"""Bytes of a step or of a problem. A longer problem is cut by the child."""
STEPS_MAX = 1_000


class MalformedReportError(Exception):
    """The bytes are not the frames that a child writes."""


def frame(kind: bytes, content: bytes) -> bytes:
    """Return one frame."""
    return _HEAD.pack(kind, len(content)) + content


@dataclass(slots=True)
class ReportReader:
    """Reads the frames of one child as their bytes come.

    answer_bytes_max  most bytes of the answer.
    on_step           called with the text of each step.
    """

    answer_bytes_max: int
    on_step: Callable[[str], None]
    step: str = "starting"
    """The step that the child said last."""
    answer: bytes | None = None
    problem: str | None = None
    _pending: bytearray = field(default_factory=bytearray)
    _steps: int = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the pipe. Raises MalformedReportError."""
        self._pending += data
        while (complete := self._next_frame()) is not None:
            self._take(*complete)

    def end(self) -> None:
        """Take the end of the pipe. Raises MalformedReportError when bytes are left over."""
        if self._pending:
            raise MalformedReportError("it ends within a frame")

    def _next_frame(self) -> tuple[bytes, bytes] | None:
        if len(self._pending) < _HEAD.size:
            return None
        # The length is judged before its bytes are awaited.
        kind, length = _HEAD.unpack_from(self._pending)
        most = {STEP: TEXT_BYTES_MAX, PROBLEM: TEXT_BYTES_MAX, ANSWER: self.answer_bytes_max}
        if kind not in most or self.answer is not None or self.problem is not None:
            raise MalformedReportError("it has bytes that are no frame")
        if length > most[kind]:
            raise MalformedReportError(f"it has {length} bytes, {most[kind]} at most")
        if len(self._pending) < _HEAD.size + length:
            return None
        content = bytes(memoryview(self._pending)[_HEAD.size : _HEAD.size + length])
        del self._pending[: _HEAD.size + length]
        return kind, content

    def _take(self, kind: bytes, content: bytes) -> None:
        if kind == ANSWER:
            self.answer = content
            return
        text = content.decode("utf-8", "replace")
        if kind == PROBLEM:
            self.problem = text
            return
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise MalformedReportError(f"it has more than {STEPS_MAX} steps")
        self.step = text
        self.on_step(text)
