"""Counts the rows of served batches into cells, with vectors and not with loops over rows.

Batches of one version are joined first, because a journal's record may have a single row: a joined
column costs nanoseconds a row, and a batch some microseconds. C is the number of calls of a joined
group, R the number of its rows, F the inputs and K the outputs of the version.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from host.clock import HOUR_NS
from monitoring.cells.cell import (
    CALLS,
    FLAG_BITS,
    ROW_FLAGS,
    ROWS,
    CellCounts,
    CellKey,
    feature_column,
    score_column,
)
from monitoring.cells.segments import Segments
from monitoring.cells.version_bins import FeatureBins, VersionBins
from monitoring.errors import BadRecordError
from protos.journal_pb2 import ServedBatch
from stats.score_grid import bins_by_edges

ID_BYTES = 64
FEW_EDGES = 24
"""Up to so many edges, comparing a column with each of them is faster than a binary search."""
CHUNK_ROWS = 32_768
"""Rows that are counted at once: a chunk of a column stays in the processor's cache."""

BinsOf = Callable[[str, str, int], VersionBins]
"""Returns the bins of (model, label, digest8)."""
HoldoutOf = Callable[[bytes], NDArray[np.bool_]]
"""Returns which of C joined prediction ids are of the control group, (C,) bool."""


SegmentRule = Callable[[VersionBins, NDArray[np.float32]], Segments | None]
"""Returns the segments of (R, F) inputs of a version; None: the model has none."""


def no_segments(_bins: VersionBins, _vectors: NDArray[np.float32]) -> None:
    """Give every row the segment "" alone, which has all rows."""


class _Group(NamedTuple):
    """What the batches that are joined have in common."""

    model: str
    version: str
    digest8: int
    width: int
    outputs: int


@dataclass(slots=True)
class _Columns:
    """The columns of the batches of one group, not joined yet."""

    at_unix_ns: list[bytes] = field(default_factory=list)
    role: list[bytes] = field(default_factory=list)
    row_count: list[bytes] = field(default_factory=list)
    prediction_ids: list[bytes] = field(default_factory=list)
    row_flags: list[bytes] = field(default_factory=list)
    vectors: list[bytes] = field(default_factory=list)
    scores: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that are in the same cells: an index array, or all rows of the group."""

    key: CellKey
    segments: tuple[str, ...]
    """The segments beside that of all rows."""
    calls: int
    rows: NDArray[np.intp] | slice


def check_served_batch(batch: ServedBatch) -> tuple[int, int]:
    """Return the numbers of calls and rows of a batch.

    Raises BadRecordError when its columns have other lengths than they state.
    """
    calls = len(batch.role)
    rows = int(np.frombuffer(batch.row_count, "<u4").sum()) if len(batch.row_count) % 4 == 0 else -1
    sizes = {
        "at_unix_ns": (len(batch.at_unix_ns), 8 * calls),
        "row_count": (len(batch.row_count), 4 * calls),
        "prediction_ids": (len(batch.prediction_ids), ID_BYTES * calls),
        "key_hash": (len(batch.key_hash), 8 * calls),
        "row_flags": (len(batch.row_flags), 4 * rows),
        "vectors": (len(batch.vectors), 4 * rows * batch.width),
        "scores": (len(batch.scores), 4 * rows * batch.outputs),
    }
    if rows > 0 and len(batch.entity_ids) % rows:
        sizes["entity_ids"] = len(batch.entity_ids), rows
    wrong = [f"{name} {has}, not {size}" for name, (has, size) in sizes.items() if has != size]
    if wrong or not batch.model:
        raise BadRecordError(
            f"a served batch of model {batch.model!r} with {calls} calls and {rows} rows has "
            f"{', '.join(wrong) or 'no model'}; it is left out and counted as damage"
        )
    return calls, rows


class CellCounter:
    """Adds served batches up.

    bins_of     gives the bins of a version.
    holdout_of  reads the control group from prediction ids.
    segment_of  gives each row its segment.
    """

    def __init__(
        self,
        bins_of: BinsOf,
        holdout_of: HoldoutOf,
        segment_of: SegmentRule = no_segments,
    ) -> None:
        self._bins_of = bins_of
        self._holdout_of = holdout_of
        self._segment_of = segment_of
        self._groups: dict[_Group, _Columns] = {}

    def add(self, batch: ServedBatch, *, checked: bool = False) -> None:
        """Take one batch. Raises BadRecordError, and adds nothing.

        checked  `check_served_batch` has passed it.
        """
        if not checked:
            check_served_batch(batch)
        group = _Group(batch.model, batch.version, batch.version_digest, batch.width, batch.outputs)
        columns = self._groups.get(group)
        if columns is None:
            columns = self._groups[group] = _Columns()
        columns.at_unix_ns.append(batch.at_unix_ns)
        columns.role.append(batch.role)
        columns.row_count.append(batch.row_count)
        columns.prediction_ids.append(batch.prediction_ids)
        columns.row_flags.append(batch.row_flags)
        columns.vectors.append(batch.vectors)
        columns.scores.append(batch.scores)

    def take_cells(self) -> dict[CellKey, CellCounts]:
        """Return the counts of all batches that were added since the last time."""
        groups, self._groups = self._groups, {}
        cells: dict[CellKey, CellCounts] = {}
        for group, columns in groups.items():
            for key, counts in self._count_group(group, columns):
                cells.setdefault(key, CellCounts()).add_cell(counts)
        return cells

    def _count_group(
        self, group: _Group, columns: _Columns
    ) -> Iterator[tuple[CellKey, CellCounts]]:
        bins = self._bins_of(group.model, group.version, group.digest8)
        # Join the columns of all batches.
        flags = np.frombuffer(b"".join(columns.row_flags), "<u4")
        vectors = np.frombuffer(b"".join(columns.vectors), "<f4").reshape(len(flags), group.width)
        scores = np.frombuffer(b"".join(columns.scores), "<f4").reshape(-1, group.outputs)
        # A reference of another shape would count inputs under the wrong names.
        if (len(bins.features), len(bins.outputs)) != (group.width, group.outputs):
            bins = VersionBins(group.model, group.version, group.digest8, problem=bins.problem)
        for part in self._parts(group, columns, bins, vectors):
            counts = CellCounts({CALLS: np.array([part.calls]), ROWS: np.zeros(1, np.int64)})
            _count_rows(counts, bins, flags[part.rows], vectors[part.rows], scores[part.rows])
            # Rows are counted once, and added to every cell that they are in.
            for segment in ("", *part.segments):
                yield part.key._replace(segment=segment), counts

    def _parts(
        self,
        group: _Group,
        columns: _Columns,
        bins: VersionBins,
        vectors: NDArray[np.float32],
    ) -> Iterator[_Rows]:
        """Yield the rows of a group by what their cells depend on."""
        # What a call's cell depends on, as one number: hour, role and control group.
        hours = np.frombuffer(b"".join(columns.at_unix_ns), "<i8") // HOUR_NS
        roles = np.frombuffer(b"".join(columns.role), np.uint8).astype(np.int64)
        holdout = self._holdout_of(b"".join(columns.prediction_ids))
        row_count = np.frombuffer(b"".join(columns.row_count), "<u4")
        calls = (hours << 9) | (roles << 1) | holdout
        # A row's cells depend on its segments too.
        segments = self._segment_of(bins, vectors) or Segments(((),), np.zeros(0, np.intp))
        one_segment = len(segments.names) == 1
        if one_segment and len(calls) and (calls == calls[0]).all():
            yield _Rows(_key(group, int(calls[0])), segments.names[0], len(calls), slice(None))
            return
        # Hour, role, control group and segments of each row as one number.
        rows = np.repeat(calls, row_count) * len(segments.names)
        if not one_segment:
            rows += segments.of_row
        # A call counts once, in the segments of its first row.
        first_rows = np.cumsum(row_count, dtype=np.int64) - row_count
        calls = rows[first_rows[row_count > 0]]
        for code, same in _rows_by_code(rows):
            code_of_call, combination = divmod(code, len(segments.names))
            yield _Rows(
                _key(group, code_of_call),
                segments.names[combination],
                int(np.count_nonzero(calls == code)),
                same,
            )


def _rows_by_code(codes: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each distinct code with the positions where it stands, in order."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    for start, same in zip(starts.tolist(), np.split(order, starts[1:]), strict=True):
        yield int(ordered[start]), same


def _key(group: _Group, code: int) -> CellKey:
    """Return the key of the cell of all rows of one code, as `_parts` makes it."""
    return CellKey(
        group.model,
        group.version,
        group.digest8,
        (code >> 1) & 0xFF,
        bool(code & 1),
        "",
        code >> 9,
    )


def _count_rows(
    counts: CellCounts,
    bins: VersionBins,
    flags: NDArray[np.uint32],
    vectors: NDArray[np.float32],
    scores: NDArray[np.float32],
) -> None:
    """Add the flags, scores and inputs of R rows of one cell to *counts*."""
    counts.add(ROWS, np.array([len(flags)]))
    counts.add(ROW_FLAGS, _count_flags(flags))
    for output, item in enumerate(bins.outputs):
        binned = bins_by_edges(np.ascontiguousarray(scores[:, output]), item.edges)
        counts.add(score_column(item.name), np.bincount(binned, minlength=item.size))
    if not bins.features:
        return
    totals = [np.zeros(feature.size, dtype=np.int64) for feature in bins.features]
    # A chunk is turned into contiguous columns, which stay in the cache while they are counted.
    for start in range(0, len(vectors), CHUNK_ROWS):
        chunk = np.ascontiguousarray(vectors[start : start + CHUNK_ROWS].T)
        for number, column in enumerate(chunk):
            totals[number] += count_feature(column, bins.features[number])
    for feature, total in zip(bins.features, totals, strict=True):
        counts.add(feature_column(feature.name), total)


def _count_flags(flags: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the (FLAG_BITS,) rows with each bit."""
    counts = np.zeros(FLAG_BITS, dtype=np.int64)
    flagged = flags[flags != 0]
    for bit in range(FLAG_BITS if len(flagged) else 0):
        counts[bit] = np.count_nonzero(flagged & np.uint32(1 << bit))
    return counts


def count_feature(column: NDArray[np.float32], feature: FeatureBins) -> NDArray[np.int64]:
    """Return the counts of one input's (N,) values: its bins, then missing, then unknown."""
    counts = np.zeros(feature.size, dtype=np.int64)
    edges, missing = feature.edges, feature.missing_index
    if len(edges) <= FEW_EDGES:
        # The rows at or below each edge, of which each bin is a difference. NaN is below none.
        below = np.array([np.count_nonzero(column <= edge) for edge in edges], dtype=np.int64)
        present = int(np.count_nonzero(column == column))  # only NaN differs from itself
        counts[:missing] = np.diff(below, prepend=0, append=present)
    else:
        finite = column[column == column]
        present = len(finite)
        binned = np.searchsorted(edges, finite, side="left")
        counts[:missing] = np.bincount(binned, minlength=missing)
    counts[missing] = len(column) - present
    if feature.categories:
        counts[feature.unknown_index] = np.count_nonzero(column == feature.categories)
    return counts
