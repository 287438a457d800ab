"""Scored rows of one version as columns, from the reader of a journal to the files of decisions.

R is the number of rows, F the inputs, K the outputs of the version, E the entities of its model.
All arrays are little-endian, one behind the other in the order of DecisionRows, and compressed.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.clock import DAY_NS
from monitoring.errors import BadDecisionsError
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import ServedBatch

ID_BYTES = 64
JOINED = (
    "at_unix_ns",
    "role",
    "row_count",
    "prediction_ids",
    "key_hash",
    "row_flags",
    "vectors",
    "scores",
)
"""Columns of a ServedBatch."""
SAMPLE_ALL = 65_536
COLUMNS = (
    "prediction_id",
    "row",
    "at_unix_ns",
    "role",
    "holdout",
    "key_hash",
    "row_flags",
    "vectors",
    "scores",
    "entity_ids",
)
"""Fields of DecisionRows, in the order of a block."""
COMPRESSION = 1
"""The fastest level of zlib. Parquet's ZSTD compresses them for good."""
CONTENT_BYTES_MAX = 64 << 20
"""Bytes of one block after it is inflated; a larger one is refused."""


@dataclass(frozen=True, eq=False, slots=True)
class DecisionRows:
    """The columns of R scored rows of one version."""

    prediction_id: NDArray[np.void]
    """(R,) the id of the row's call; a shadow's row has that of the answer that it shadows."""
    row: NDArray[np.uint32]
    """(R,) number of the row in its call."""
    at_unix_ns: NDArray[np.int64]
    role: NDArray[np.uint8]
    holdout: NDArray[np.uint8]
    key_hash: NDArray[np.uint64]
    row_flags: NDArray[np.uint32]
    vectors: NDArray[np.float32]
    """(R, F) the model's inputs."""
    scores: NDArray[np.float32]
    """(R, K) its outputs."""
    entity_ids: tuple[str, ...]
    """R * E texts, row by row."""

    def __len__(self) -> int:
        """Return R, the number of rows."""
        return len(self.row)

    def only(self, kept: NDArray[np.bool_]) -> "DecisionRows":
        """Return the rows of which (R,) *kept* is true."""
        entities = len(self.entity_ids) // max(1, len(self))
        ids = np.array(self.entity_ids, dtype=object).reshape(len(self), entities)
        return DecisionRows(
            self.prediction_id[kept],
            self.row[kept],
            self.at_unix_ns[kept],
            self.role[kept],
            self.holdout[kept],
            self.key_hash[kept],
            self.row_flags[kept],
            self.vectors[kept],
            self.scores[kept],
            tuple(ids[kept].ravel().tolist()),
        )


def join_batches(batches: Iterable[ServedBatch]) -> Iterator[ServedBatch]:
    """Yield one batch for all those of a version, so that a block has many rows."""
    groups: dict[tuple[object, ...], list[ServedBatch]] = {}
    for batch in batches:
        entities = len(batch.entity_ids) * 4 // max(1, len(batch.row_flags))
        names = batch.model, batch.version, batch.version_digest
        groups.setdefault((*names, batch.width, batch.outputs, entities), []).append(batch)
    for same in groups.values():
        joined = ServedBatch(
            model=same[0].model,
            version=same[0].version,
            version_digest=same[0].version_digest,
            width=same[0].width,
            outputs=same[0].outputs,
        )
        for name in JOINED:
            setattr(joined, name, b"".join([getattr(batch, name) for batch in same]))
        for batch in same:
            joined.entity_ids.extend(batch.entity_ids)
        yield joined


def sample_decisions(
    batch: ServedBatch, holdout: NDArray[np.bool_], sampled_of_65536: int
) -> Iterator[pb.DecisionBlock]:
    """Yield the rows of sampled keys as one block for each day.

    batch    was checked (monitoring.cells.counting).
    holdout  (C,) which calls are of the control group.
    """
    key_hash = np.frombuffer(batch.key_hash, "<u8")
    sampled = (key_hash & np.uint64(SAMPLE_ALL - 1)) < np.uint64(sampled_of_65536)
    if not sampled.any():
        return
    # Every column of a call becomes one of rows.
    row_count = np.frombuffer(batch.row_count, "<u4")
    call = np.repeat(np.arange(len(row_count)), row_count)
    first = np.cumsum(row_count, dtype=np.int64) - row_count
    row = (np.arange(len(call)) - first[call]).astype("<u4")
    at_unix_ns = np.frombuffer(batch.at_unix_ns, "<i8")[call]
    entities = len(batch.entity_ids) // max(1, len(call))
    ids = np.array(list(batch.entity_ids), dtype=object).reshape(len(call), entities)
    # A block is of one day.
    for day in np.unique(at_unix_ns[sampled[call]] // DAY_NS).tolist():
        rows = np.flatnonzero(sampled[call] & (at_unix_ns // DAY_NS == day))
        yield pack_decisions(
            DecisionRows(
                np.frombuffer(batch.prediction_ids, f"V{ID_BYTES}")[call[rows]],
                row[rows],
                at_unix_ns[rows],
                np.frombuffer(batch.role, np.uint8)[call[rows]],
                holdout.astype(np.uint8)[call[rows]],
                key_hash[call[rows]],
                np.frombuffer(batch.row_flags, "<u4")[rows],
                np.frombuffer(batch.vectors, "<f4").reshape(len(call), batch.width)[rows],
                np.frombuffer(batch.scores, "<f4").reshape(-1, batch.outputs)[rows],
                tuple(ids[rows].ravel().tolist()),
            ),
            pb.DecisionBlock(
                model=batch.model,
                version=batch.version,
                version_digest=batch.version_digest,
                day=day,
                entities=entities,
            ),
        )


def pack_decisions(rows: DecisionRows, names: pb.DecisionBlock) -> pb.DecisionBlock:
    """Return a block with *rows*; *names* has model, version, day and entities."""
    texts = [text.encode() for text in rows.entity_ids]
    lengths = np.array([len(text) for text in texts], dtype="<u2")
    arrays = (
        rows.prediction_id,
        rows.row,
        rows.at_unix_ns,
        rows.role,
        rows.holdout,
        rows.key_hash,
        rows.row_flags,
        rows.vectors,
        rows.scores,
        lengths,
    )
    content = b"".join([*(np.ascontiguousarray(array).tobytes() for array in arrays), *texts])
    block = pb.DecisionBlock(
        rows=len(rows),
        width=rows.vectors.shape[1],
        outputs=rows.scores.shape[1],
        content=zlib.compress(content, COMPRESSION),
    )
    block.MergeFrom(names)
    return block


def unpack_decisions(block: pb.DecisionBlock) -> DecisionRows:
    """Return the rows of a block. Raises BadDecisionsError when it has others than it states."""
    try:
        inflating = zlib.decompressobj()
        content = inflating.decompress(block.content, CONTENT_BYTES_MAX)
        if inflating.unconsumed_tail or not inflating.eof:
            raise BadDecisionsError(
                f"a block of decisions is cut, or over {CONTENT_BYTES_MAX} bytes"
            )
        return _parse(block, content)
    except (zlib.error, ValueError) as error:
        raise BadDecisionsError(
            f"a block of {block.rows} decisions of {block.model!r} cannot be read: {error}"
        ) from error


def _parse(block: pb.DecisionBlock, content: bytes) -> DecisionRows:
    """Cut the columns out of the content of a block. Raises ValueError if one is too short."""
    offset = 0

    def take(dtype: str, count: int) -> Any:  # noqa: ANN401  an array of this dtype
        nonlocal offset
        array = np.frombuffer(content, dtype, count, offset)
        offset += array.nbytes
        return array

    rows, width, outputs = block.rows, block.width, block.outputs
    columns: list[Any] = [
        take(dtype, rows) for dtype in (f"V{ID_BYTES}", "<u4", "<i8", "u1", "u1", "<u8", "<u4")
    ]
    vectors = take("<f4", rows * width).reshape(rows, width)
    scores = take("<f4", rows * outputs).reshape(rows, outputs)
    lengths = take("<u2", rows * block.entities).astype(np.int64)
    ends = offset + np.cumsum(lengths)
    if len(content) != (int(ends[-1]) if len(ends) else offset):
        raise ValueError(f"it has {len(content)} bytes, and its columns another number")
    texts = tuple(
        content[end - length : end].decode()
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    )
    return DecisionRows(**dict(zip(COLUMNS, [*columns, vectors, scores, texts], strict=True)))
