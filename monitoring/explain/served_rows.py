"""Finds the row that a prediction id names, in the journals of gateways.

A journal has no index, so its segments are searched for the bytes of the id, the newest first. An
id that is not sealed names the worker that wrote it, and only that worker's segments are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from host.files import folder_lock
from journal.prediction_id import LENGTH, made_by
from journal.segment import (
    HEADER,
    JournalKind,
    SegmentName,
    find_next_record,
    intact_records,
    list_segments,
)
from journal.served import journals_below
from protos.journal_pb2 import ServedBatch
from registry.explanation.errors import NotExplainedError

SEARCHED_BYTES_MAX = 8 * 2**30
"""Bytes of segments that are searched for one id: some seconds of reading."""
CLOCK_MS = 60_000
"""A segment that began so much later than a prediction does not have it."""


@dataclass(frozen=True, eq=False, slots=True)
class ServedDecision:
    """One call as it was answered.

    version_start  the first 8 bytes of the version's id, in hex; empty: its label alone is known.
    vectors        (R, F) float32, the model inputs of its rows.
    scores         (R, K) float32.
    """

    model: str
    version: str
    version_start: str
    at_unix_ns: int
    vectors: NDArray[np.float32]
    scores: NDArray[np.float32]


class DecisionSource(Protocol):
    """Where served decisions are found."""

    def find_decision(self, prediction_id: bytes) -> ServedDecision | None:
        """Return the call that an id names; None if it is not here. It may block.

        Raises NotExplainedError if it could not be looked for.
        """


class JournalDecisions:
    """Finds decisions in every journal below a folder (DecisionSource)."""

    def __init__(self, folder: Path, *, bytes_max: int = SEARCHED_BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max

    def find_decision(self, prediction_id: bytes) -> ServedDecision | None:
        """Return the call that an id names, or None."""
        left = self._bytes_max
        for path in self._segments(prediction_id):
            try:
                left -= path.stat().st_size
                if left < 0:
                    raise NotExplainedError(
                        f"the id is not in the newest {self._bytes_max >> 20} MB of the journal, "
                        "and no more is searched; give the row with --model, --version and --input"
                    )
                with folder_lock(path.parent, shared=True):
                    content = path.read_bytes()
            except FileNotFoundError:
                continue  # removed by retention meanwhile
            if prediction_id in content:
                found = _find_in(content, prediction_id)
                if found is not None:
                    return found
        return None

    def _segments(self, prediction_id: bytes) -> Iterator[Path]:
        """Yield the segments that may have the id, the newest first."""
        made = made_by(prediction_id)
        named: list[tuple[SegmentName, Path]] = []
        for folder in journals_below(self._folder):
            for name in list_segments(folder, JournalKind.SERVED):
                late = made is not None and name.unix_ms > made[0] + CLOCK_MS
                if not late and (made is None or name.boot_id == made[1]):
                    named.append((name, folder / str(name)))
        yield from (path for _, path in sorted(named, reverse=True))


def _find_in(content: bytes, prediction_id: bytes) -> ServedDecision | None:
    """Return the call of an id in the bytes of a segment; damaged records are passed over."""
    offset: int | None = HEADER.size
    while offset is not None:
        last = offset
        for record in intact_records(content, offset):
            last = record.end
            if prediction_id in record.payload:
                found = _decision(record.payload, prediction_id)
                if found is not None:
                    return found
        offset = find_next_record(content, last) if last < len(content) else None
    return None


def _decision(payload: bytes, prediction_id: bytes) -> ServedDecision | None:
    """Return the call of an id in a record."""
    try:
        batch = ServedBatch.FromString(payload)
    except DecodeError:
        return None
    ids = [
        batch.prediction_ids[start : start + LENGTH]
        for start in range(0, len(batch.prediction_ids), LENGTH)
    ]
    if prediction_id not in ids:
        return None
    # Rows of the calls stand one after another.
    call = ids.index(prediction_id)
    counts = np.frombuffer(batch.row_count, dtype="<u4").astype(np.int64)
    first = int(counts[:call].sum())
    rows = slice(first, first + int(counts[call]))
    vectors = np.frombuffer(batch.vectors, dtype="<f4").reshape(-1, batch.width)
    scores = np.frombuffer(batch.scores, dtype="<f4").reshape(-1, batch.outputs)
    return ServedDecision(
        model=batch.model,
        version=batch.version,
        version_start=batch.version_digest.to_bytes(8, "little").hex(),
        at_unix_ns=int(np.frombuffer(batch.at_unix_ns, dtype="<i8")[call]),
        vectors=vectors[rows],
        scores=scores[rows],
    )
